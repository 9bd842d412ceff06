"""Embedder on onnxruntime: runs an exported encoder four times as fast as sentence-transformers, without torch.

A single session serves passages and queries. It computes on the calling thread (``intra_op_num_threads=1``). Passages
run on low-priority worker threads, each with its own batch and without a barrier between cores. Queries run on the
calling thread at normal priority, so passages do not delay them. A batch holds texts of equal length, without padding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
from tokenizers import Encoding

from ragsvc.core.errors import EmbeddingFailed
from ragsvc.core.ports.embedding import EmbeddingModel, Vectors
from ragsvc.inference.model_files import ModelFiles
from ragsvc.inference.thread_priority import available_cores, lower_priority
from ragsvc.inference.tokens import Vocabulary, shared_tokenizer, truncated_ids

_INPUT, _OUTPUT = "ids", "vectors"
_BATCH_TOKENS = 256
"""Tokens of a forward pass: more exceed the core's cache, fewer repeat the overhead of 100 operators."""


class OnnxEmbedder:
    """Port ``Embedder`` on onnxruntime; thread-safe."""

    def __init__(self, files: ModelFiles, graph: Path, *, precision: str, threads: int | None = None) -> None:
        """Load the exported graph; ``threads`` embed passages (default: one per core this process may use).

        Raises:
            EmbeddingFailed: graph or tokenizer cannot be loaded.
        """
        self._files = files
        self._precision = precision
        self._tokenizer = shared_tokenizer(files.tokenizer_file)
        self._vocabulary = Vocabulary(self._tokenizer)
        self._session: onnxruntime.InferenceSession | None = open_session(graph)
        self._workers = ThreadPoolExecutor(
            threads or available_cores(), thread_name_prefix="embed", initializer=lower_priority
        )

    @property
    def model(self) -> EmbeddingModel:
        return self._files.model

    @property
    def runtime(self) -> str:
        """``onnxruntime-int8`` or ``onnxruntime-fp32``."""
        return f"onnxruntime-{self._precision}"

    def embed_passages(self, texts: Sequence[str]) -> Vectors:
        """Embed passages on all workers, longest batch first."""
        vectors = np.empty((len(texts), self.model.dimension), np.float32)
        encoded = self._encode(texts, self._files.passage_prompt)

        def run(rows: list[int]) -> None:
            vectors[rows] = self._forward([encoded[row] for row in rows])

        try:
            for _ in self._workers.map(run, equal_length_batches([len(ids) for ids in encoded])):
                pass
        except RuntimeError as error:  # the pool was shut down by ``close``
            raise EmbeddingFailed("The embedding model is closed.") from error
        return vectors

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """Embed queries on the calling thread."""
        return self._embed_here(texts, self._files.query_prompt)

    def embed_unprompted(self, texts: Sequence[str]) -> Vectors:
        """Embed texts without a prompt on the calling thread, for comparison with another runtime."""
        return self._embed_here(texts, "")

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count the model's tokens of each text, special tokens included, before truncation."""
        return [len(encoding) for encoding in self._tokenizer.encode_batch_fast(list(texts))]

    def knows(self, text: str) -> bool:
        """Whether the vocabulary has words of this text's script."""
        return self._vocabulary.knows(text)

    def close(self) -> None:
        """Wait for running passes, then free the model."""
        self._workers.shutdown(wait=True, cancel_futures=True)
        self._session = None

    def _embed_here(self, texts: Sequence[str], prompt: str) -> Vectors:
        vectors = np.empty((len(texts), self.model.dimension), np.float32)
        # encode_batch would run in the tokenizer's thread pool, which may have low priority
        encoded = [self._ids(self._tokenizer.encode(self._prepare(text, prompt))) for text in texts]
        for rows in equal_length_batches([len(ids) for ids in encoded]):
            vectors[rows] = self._forward([encoded[row] for row in rows])
        return vectors

    def _prepare(self, text: str, prompt: str) -> str:
        text = prompt + text
        return text.lower() if self._files.lower_case else text

    def _encode(self, texts: Sequence[str], prompt: str) -> list[list[int]]:
        prepared = [self._prepare(text, prompt) for text in texts]
        return [self._ids(encoding) for encoding in self._tokenizer.encode_batch_fast(prepared)]

    def _ids(self, encoding: Encoding) -> list[int]:
        return truncated_ids(encoding, self.model.max_tokens)

    def _forward(self, ids: list[list[int]]) -> npt.NDArray[np.float32]:
        """Vectors of texts with equally many tokens."""
        session = self._session
        if session is None:
            raise EmbeddingFailed("The embedding model is closed.")
        try:
            return self._run(session, ids)
        except Exception as error:  # onnxruntime's exceptions share no base class
            raise EmbeddingFailed(f"The runtime onnxruntime failed: {error}.") from error

    def _run(self, session: onnxruntime.InferenceSession, ids: list[list[int]]) -> npt.NDArray[np.float32]:
        (vectors,) = session.run([_OUTPUT], {_INPUT: np.array(ids, np.int32)})
        return np.asarray(vectors, np.float32)


def equal_length_batches(lengths: Sequence[int], *, batch_tokens: int = _BATCH_TOKENS) -> Iterator[list[int]]:
    """Group row numbers of equal length into batches of at most ``batch_tokens`` tokens or one text, longest first.

    >>> list(equal_length_batches([5, 9, 5, 5], batch_tokens=10))
    [[1], [0, 2], [3]]
    """
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        length = lengths[row]
        if batch and (lengths[batch[0]] != length or (len(batch) + 1) * length > batch_tokens):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def open_session(graph: Path) -> onnxruntime.InferenceSession:
    """Open a graph for calls from several threads, each computing on the calling thread. Raises ``EmbeddingFailed``."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # would cache a memory layout for each text length
    options.enable_cpu_mem_arena = False  # its blocks move between threads: 128 µs per token on two cores, 82 without
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no base class
        raise EmbeddingFailed(f"The graph {graph} cannot be loaded by onnxruntime: {error}.") from error
