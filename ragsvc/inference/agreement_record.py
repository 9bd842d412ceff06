"""Remembers that an export agreed with the original on this processor, so that later starts need not run the probe.

The comparison takes an eighth of a second of processor time and 27 MB. A result counts for one export (by its hash),
one version of onnxruntime and one processor (by its model and instruction sets), and is checked again otherwise.
"""

from __future__ import annotations

import contextlib
import hashlib
import platform
from pathlib import Path
from typing import Final

import msgspec

from ragsvc.inference.atomic_files import write_atomically

_FILE: Final = "agreements.json"
_MOST: Final = 64
"""Results kept; a data directory that is shared by many kinds of machines forgets the oldest."""


class AgreementRecord:
    """Mean cosines by export, runtime and processor, in the folder of a data directory's models."""

    def __init__(self, data_dir: Path, *, export_sha256: str, runtime: str) -> None:
        self._file = data_dir / "models" / _FILE
        self._key = f"{export_sha256} {runtime} {processor_identity()}"

    def mean(self) -> float | None:
        """The mean cosine that was found before; ``None`` if the export has to be compared."""
        return self._read().get(self._key)

    def remember(self, mean: float) -> None:
        known = self._read()
        known.pop(self._key, None)
        entries = [*known.items(), (self._key, mean)][-_MOST:]
        with contextlib.suppress(OSError):  # no room: the next start compares again
            write_atomically(self._file, msgspec.json.format(msgspec.json.encode(dict(entries)), indent=1))

    def _read(self) -> dict[str, float]:
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=dict[str, float])
        except (OSError, msgspec.DecodeError):
            return {}


def processor_identity() -> str:
    """Architecture, and a hash of the processor's model and instruction sets where Linux lists them."""
    lines: set[str] = set()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            if line.startswith(("model name", "flags", "Features", "CPU part", "CPU implementer")):
                lines.add(line)
    described = hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16]
    return f"{platform.machine()}-{described}"
