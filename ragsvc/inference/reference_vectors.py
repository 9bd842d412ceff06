"""Runs sentence-transformers in a child process, for reference vectors that the accelerated runtime is compared with.

``python -m ragsvc.inference.reference_vectors FOLDER MAX_TOKENS TEXTS.json VECTORS.npy`` embeds texts without prompts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ragsvc.core.errors import EmbeddingFailed
from ragsvc.core.ports.embedding import Vectors
from ragsvc.inference.shipped_model import require_sentence_transformers

_TIMEOUT_S = 600.0


def reference_vectors(folder: Path, texts: Sequence[str], *, max_tokens: int) -> Vectors:
    """Vectors of ``texts`` by sentence-transformers, computed in a child process so that torch's memory is freed.

    Texts are truncated to ``max_tokens``.

    Raises:
        EmbeddingFailed: sentence-transformers is not installed, or the child process failed or took longer than ten
            minutes.
    """
    require_sentence_transformers()
    with tempfile.TemporaryDirectory(prefix="ragsvc-reference-") as temporary:
        texts_file, vectors_file = Path(temporary, "texts.json"), Path(temporary, "vectors.npy")
        texts_file.write_text(json.dumps(list(texts)), "utf-8")
        command = [sys.executable, "-m", __name__, str(folder), str(max_tokens), str(texts_file), str(vectors_file)]
        try:
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
            subprocess.run(command, check=True, capture_output=True, timeout=_TIMEOUT_S, env=environment)  # noqa: S603 - this module
        except subprocess.CalledProcessError as error:
            tail = error.stderr.decode("utf-8", "replace")[-500:]
            raise EmbeddingFailed(f"The model {folder} cannot be run by sentence-transformers: {tail}.") from error
        except subprocess.TimeoutExpired as error:
            raise EmbeddingFailed(
                f"The model {folder} took longer than {_TIMEOUT_S:.0f} s in sentence-transformers."
            ) from error
        vectors: Vectors = np.load(vectors_file)
        return vectors


def limit_tokens(transformer: Any, max_tokens: int) -> None:  # noqa: ANN401 - a SentenceTransformer
    """Lower the model's token limit: without one in its configuration, RoBERTa's allows more than it has positions."""
    limit = transformer.max_seq_length
    if limit is None or limit > max_tokens:
        transformer.max_seq_length = max_tokens


def main(arguments: Sequence[str]) -> None:
    """Read texts from a JSON file, embed them, and write the vectors to a NumPy file."""
    folder, max_tokens, texts_file, vectors_file = arguments
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415 - imports torch: seconds

    transformer = SentenceTransformer(folder, device="cpu", local_files_only=True)
    limit_tokens(transformer, int(max_tokens))
    texts = json.loads(Path(texts_file).read_text("utf-8"))
    vectors = transformer.encode(texts, prompt="", normalize_embeddings=True, show_progress_bar=False)
    np.save(vectors_file, np.asarray(vectors, np.float32))


if __name__ == "__main__":
    main(sys.argv[1:])
