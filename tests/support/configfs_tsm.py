"""An imitation of the kernel's configfs-tsm, for tests of the requests that are made to it."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar


class TsmFolder(type(Path())):  # a Path whose files behave like the kernel's files
    """``mkdir`` creates an entry with its files, writing ``inblob`` creates the quote, ``rmdir`` removes the entry."""

    log: ClassVar[list[str]] = []
    generation_step = 1
    auxiliary = b""
    quote_head = bytes(0x50)
    quote_tail = bytes(1184 - 0x90)

    def mkdir(self, *arguments, **options):
        super().mkdir(*arguments, **options)
        (self / "generation").write_text("7\n")
        (self / "provider").write_text("sev_guest\n")
        Path(self / "outblob").write_bytes(b"")
        if self.auxiliary:
            Path(self / "auxblob").write_bytes(self.auxiliary)

    def write_bytes(self, data):
        if self.name == "inblob":
            self.log.append(f"inblob {len(data)}")
            Path(self.parent / "outblob").write_bytes(self.quote_head + data + self.quote_tail)
            Path(self.parent / "generation").write_text(str(7 + self.generation_step))
            return len(data)
        return super().write_bytes(data)

    def rmdir(self):
        self.log.append("rmdir")
        for file in self.iterdir():
            Path(file).unlink()
        super().rmdir()
