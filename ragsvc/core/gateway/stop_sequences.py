"""Detection of stop sequences in streamed text."""

from __future__ import annotations

from collections.abc import Sequence


class StopScanner:
    """Passes text up to the first complete stop sequence, which may span pieces.

    If two sequences end at the same place, the text ends before the longer. So the result does not depend on slicing.

    >>> scanner = StopScanner(["END"])
    >>> scanner.feed("one E"), scanner.feed("ND two"), scanner.stopped
    ('one ', '', True)
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.stopped = False

    def feed(self, piece: str) -> str:
        """Take the next piece; return the text that cannot belong to a stop sequence."""
        if self.stopped:
            return ""
        text = self._held + piece
        places = [(text.find(stop), len(stop)) for stop in self._stops]
        found = [(start + length, start) for start, length in places if start >= 0]
        if found:
            self.stopped = True
            self._held = ""
            return text[: min(found)[1]]
        keep = self._may_begin(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def finish(self) -> str:
        """The text still held back, once the input has ended."""
        held, self._held = self._held, ""
        return held

    def _may_begin(self, text: str) -> int:
        """Length of the longest suffix of ``text`` that is a prefix of a stop sequence."""
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        for length in range(min(longest, len(text)), 0, -1):
            tail = text[len(text) - length :]
            if any(stop.startswith(tail) for stop in self._stops):
                return length
        return 0
