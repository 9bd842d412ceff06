"""Finds the part of a text that a sentence is a fragment of: an entry of a bibliography, or the steps of a procedure.

Pure. A title alone does not say who wrote it, and the second of three steps is no instruction.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from ragsvc.core.text.sentences import Span

ASKS_PROCEDURE: Final = re.compile(
    r"\b(?:how (?:do|can|should|could|would|must|to)\b|(?:which|what) steps\b|wie (?:kann|muss|soll|mache)\b)",
    re.IGNORECASE,
)

_INSTRUCTING_VERBS: Final = (
    "add adjust apply attach call charge check choose clean click close connect contact decrease disconnect download"
    " drag enter fill follow go hold increase insert install keep log lower make mount move open place plug press pull"
    " push put raise reduce register remove repeat replace reset restart rotate run select send set sign slide start"
    " stop store submit swipe switch take tap touch turn type uninstall unplug update use visit wait wash wear"
)
INSTRUCTS: Final = re.compile(
    r"\A (?:\d{1,2} )?(?:please |first |then |next )?"
    rf"(?:{'|'.join(_INSTRUCTING_VERBS.split())}) "
)
"""An instruction in English, in the form of ``plain_text``."""

_ENTRY_START: Final = re.compile(r"\A|\n\n+|\n(?=\[\d{1,3}\] )")
_NUMBER_OF_ENTRY: Final = re.compile(r"\s*\[\d{1,3}\]\s*")
_END_OF_AUTHORS: Final = re.compile(r"(?<=\bet al)\.\s|(?<![\s.][^\W\d_])(?<!\bal)\.\s")
"""A full stop that does not follow an initial."""

_YEAR: Final = re.compile(r"(?<!\d)(?:19|20)\d\d(?!\d)")
_SEVERAL: Final = re.compile(r", |\band\b|&|\bet al\b")
_WORD: Final = re.compile(r"[^\W\d_][\w'\u2019.-]*")
_IN_NAMES: Final = frozenset("and et al de van der den von la le del di da el bin ben dos".split())

_STEP: Final = re.compile(r"\(?(\d{1,2})[.):]?\s+(?=[^\W\d])")
_BARE_NUMBER: Final = re.compile(r"\(?(\d{1,2})[.):]?")
_BETWEEN_STEPS: Final = 2
"""Sentences of one step after its first."""


def reference_entry(text: str, sentence: Span, *, max_characters: int) -> Span | None:
    r"""The entry of a bibliography that contains the sentence; ``None`` in other text and for longer entries.

    >>> text = "Ann Lee and B. Xu. 2020. On boats. Journal of Boats, 3.\n\nCy Ma and Di Po. On cars, 2021."
    >>> first, last = reference_entry(text, (25, 34), max_characters=400)
    >>> text[first:last]
    'Ann Lee and B. Xu. 2020. On boats. Journal of Boats, 3.'
    """
    borders = [border.end() for border in _ENTRY_START.finditer(text)]
    block = max((border for border in borders if border <= sentence[0]), default=0)
    end = next((border for border in borders if border > sentence[0]), len(text))
    number = _NUMBER_OF_ENTRY.match(text, block)
    names = number.end() if number is not None else block
    stops = [stop.end() for stop in _END_OF_AUTHORS.finditer(text, names, end)]
    entries = [first for first, last in pairwise([names, *stops]) if _are_authors(text[first : last - 2])]
    start = max((first for first in entries if first <= sentence[0]), default=None)
    if start is None:
        return None
    end = min((first for first in entries if first > sentence[0]), default=end)
    start, end = block if start == names else start, start + len(text[start:end].rstrip())
    fits = end - start <= max_characters and sentence[1] <= end
    return (start, end) if fits and _YEAR.search(text, start, end) else None


def _are_authors(content: str) -> bool:
    """Whether a text is a list of two or more names."""
    words = [word for word in _WORD.findall(content) if word not in _IN_NAMES]
    return (
        len(words) > 2
        and not any(map(str.isdigit, content))
        and _SEVERAL.search(content) is not None
        and all(word[0].isupper() for word in words)
    )


def is_step(sentence: str) -> bool:
    return _STEP.match(sentence) is not None


def procedure(text: str, spans: Sequence[Span], at: int, *, max_characters: int) -> Span | None:
    """The numbered steps before and after the step ``spans[at]``, as far as they fit; ``None`` for another sentence."""
    contents = [text[start:end] for start, end in spans]
    own = _number_of_step(contents, at)
    if own is None:
        return None
    first, number = at, own
    while number > 1 and (before := _step_before(contents, first, number - 1)) is not None:
        if spans[at][1] - spans[before][0] > max_characters:
            break
        first, number = before, number - 1
    last, number = at, own
    for after in range(at + 1, len(spans)):
        following = _STEP.match(contents[after])
        if following is not None and int(following.group(1)) != number + 1:
            break
        if after - last > _BETWEEN_STEPS or spans[after][1] - spans[first][0] > max_characters:
            break
        if following is not None:
            last, number = after, number + 1
    return (spans[first][0], spans[last][1]) if last > first else None


def _number_of_step(contents: Sequence[str], at: int) -> int | None:
    """The number before a step, or alone in the line after it; ``None`` for a sentence that is no step."""
    step = _STEP.match(contents[at]) or (_BARE_NUMBER.fullmatch(contents[at + 1]) if at + 1 < len(contents) else None)
    return None if step is None else int(step.group(1))


def _step_before(contents: Sequence[str], at: int, number: int) -> int | None:
    """The span of the step with the number; a number alone in its line may follow the text of its step."""
    for before in range(at - 1, max(-1, at - 2 - _BETWEEN_STEPS), -1):
        step = _STEP.match(contents[before])
        if step is not None:
            return before if int(step.group(1)) == number else None
        bare = _BARE_NUMBER.fullmatch(contents[before])
        if bare is not None and int(bare.group(1)) == number:
            return before - 1 if before and before == at - 1 else before
    return None
