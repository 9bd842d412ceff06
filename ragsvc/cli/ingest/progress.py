"""Shows the progress of an ingest: bars on a terminal, periodic lines elsewhere, nothing with ``--json``."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from ragsvc.cli.ingest.folders import SourceFile
from ragsvc.cli.output import shortened
from ragsvc.cli.service_client import Json

_LINE_EVERY_S = 5.0
_NAME_WIDTH = 44


class IngestProgress:
    """Counts files, bytes and pages. The estimate is based on bytes: page counts are known only after parsing."""

    def __init__(self, *, total_files: int, total_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.total_files = total_files
        self.total_bytes = total_bytes
        self.done_files = 0
        self.failed_files = 0
        self.pages = 0
        self._done_bytes = 0.0
        self._clock = clock
        self._started = clock()
        self._share: dict[str, tuple[float, int]] = {}

    def watch(self, file: SourceFile, document: Json) -> None:
        """Update the counts from the state of a document."""
        share, pages = self._share.get(file.key, (0.0, 0))
        now = max(share, float(document.get("progress") or 0.0)), max(pages, int(document.get("pages_done") or 0))
        self._share[file.key] = now
        self._done_bytes += (now[0] - share) * file.size_bytes
        self.pages += now[1] - pages

    def finish(self, file: SourceFile, *, failed: bool) -> None:
        """Count a finished file."""
        share, _ = self._share.pop(file.key, (0.0, 0))
        self._done_bytes += (1.0 - share) * file.size_bytes
        self.done_files += 1
        self.failed_files += failed

    @property
    def fraction(self) -> float:
        """Processed share of the bytes, 0 to 1."""
        return min(1.0, self._done_bytes / self.total_bytes) if self.total_bytes else 1.0

    def line(self) -> str:
        """The progress as text: files, pages with their rate, failures, estimated time left.

        >>> print(IngestProgress(total_files=2, total_bytes=10).line())
        0/2 files · 0 pages (0.0/s)
        """
        elapsed_s = max(self._clock() - self._started, 1e-6)
        words = [
            f"{self.done_files}/{self.total_files} files",
            f"{self.pages} pages ({self.pages / elapsed_s:.1f}/s)",
        ]
        if self.failed_files:
            words.append(f"{self.failed_files} failed")
        if 0 < self.fraction < 1:
            words.append(f"ETA {_clock_time(elapsed_s * (1 - self.fraction) / self.fraction)}")
        return " · ".join(words)


class Display:
    """Receives the events of an ingest; see ``shown``."""

    def watch(self, file: SourceFile, document: Json) -> None:
        """The state of a document changed."""

    def finish(self, file: SourceFile, *, failed: bool) -> None:
        """A file is finished."""

    def pause(self, seconds: float, reason: str) -> None:
        """The service asked to wait."""


class _Counting(Display):
    def __init__(self, state: IngestProgress) -> None:
        self.state = state

    def watch(self, file: SourceFile, document: Json) -> None:
        self.state.watch(file, document)

    def finish(self, file: SourceFile, *, failed: bool) -> None:
        self.state.finish(file, failed=failed)


class _Lines(_Counting):
    """Prints a line every few seconds, for logs."""

    def __init__(self, state: IngestProgress, console: Console) -> None:
        super().__init__(state)
        self._console = console
        self._next = time.monotonic() + _LINE_EVERY_S

    def watch(self, file: SourceFile, document: Json) -> None:
        super().watch(file, document)
        self._print_when_due()

    def finish(self, file: SourceFile, *, failed: bool) -> None:
        super().finish(file, failed=failed)
        self._print_when_due()

    def _print_when_due(self) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _LINE_EVERY_S
            self._console.print(self.state.line())

    def pause(self, seconds: float, reason: str) -> None:
        if seconds >= 1:
            self._console.print(escape(f"waiting {seconds:.0f} s: {reason}"))


class _Bars(_Counting):
    """Shows a bar for the whole ingest and a row per file in progress, on terminals."""

    def __init__(self, state: IngestProgress, progress: Progress) -> None:
        super().__init__(state)
        self._progress = progress
        self._all = progress.add_task("ingest", total=1.0, words=state.line())
        self._rows: dict[str, TaskID] = {}

    def watch(self, file: SourceFile, document: Json) -> None:
        super().watch(file, document)
        row = self._rows.get(file.key)
        if row is None:
            name = escape(shortened(file.path, _NAME_WIDTH))
            row = self._rows[file.key] = self._progress.add_task(name, total=1.0, words="")
        pages = f"{document.get('pages_done') or 0}/{document.get('pages') or '?'} pages"
        self._progress.update(row, completed=document.get("progress") or 0.0, words=f"{document['stage']} · {pages}")
        self._show()

    def finish(self, file: SourceFile, *, failed: bool) -> None:
        super().finish(file, failed=failed)
        row = self._rows.pop(file.key, None)
        if row is not None:
            self._progress.remove_task(row)
        self._show()

    def _show(self) -> None:
        self._progress.update(self._all, completed=self.state.fraction, words=self.state.line())

    def pause(self, seconds: float, reason: str) -> None:
        if seconds >= 1:
            self._progress.update(self._all, words=escape(f"waiting {seconds:.0f} s: {shortened(reason, 60)}"))


@contextmanager
def shown(state: IngestProgress, console: Console, *, quiet: bool) -> Generator[Display]:
    """Show ``state`` on ``console`` while the context is active."""
    if quiet:
        yield _Counting(state)
    elif not console.is_terminal:
        yield _Lines(state, console)
        console.print(state.line())
    else:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[words]}"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=console, transient=True) as progress:
            yield _Bars(state, progress)
        console.print(Text(state.line()))


def _clock_time(seconds: float) -> str:
    """Hours, minutes and seconds.

    >>> _clock_time(3725)
    '1:02:05'
    """
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
