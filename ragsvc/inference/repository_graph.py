"""Runs the ONNX graph that a model's repository contains, for architectures that ``bert_graph`` does not know.

Such graphs are made by Optimum or sentence-transformers. They take ``input_ids`` and masks, and return either token
vectors, which are pooled here as the model's configuration says, or text vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnxruntime

from ragsvc.inference.export import ExportRefused, Precision, check_modules
from ragsvc.inference.model_download import FLOAT_GRAPHS, QUANTISED_GRAPHS
from ragsvc.inference.model_files import ModelFiles
from ragsvc.inference.onnx_embedder import OnnxEmbedder

Floats = npt.NDArray[np.float32]

_POOLINGS: Final[dict[str, Callable[[Floats], Floats]]] = {
    "mean": lambda tokens: tokens.mean(axis=1),
    "mean_sqrt_len": lambda tokens: tokens.mean(axis=1),  # another length of the vector, which is normalised
    "mean_sqrt_len_tokens": lambda tokens: tokens.mean(axis=1),
    "cls": lambda tokens: tokens[:, 0],
    "lasttoken": lambda tokens: tokens[:, -1],
    "max": lambda tokens: tokens.max(axis=1),
}
"""Poolings of (texts, tokens, dim) without padding to (texts, dim)."""

_INPUTS: Final[dict[str, Callable[[npt.NDArray[np.int64]], npt.NDArray[np.int64]]]] = {
    "input_ids": lambda ids: ids,
    "attention_mask": np.ones_like,
    "token_type_ids": np.zeros_like,
    "position_ids": lambda ids: np.broadcast_to(np.arange(ids.shape[1], dtype=np.int64), ids.shape),
}
_TOKEN_RANK: Final = 3


def find_graph(files: ModelFiles, precision: Precision) -> Path | None:
    """The repository's graph in this precision. Raises ``ExportRefused`` if the model needs more than such a graph."""
    names = QUANTISED_GRAPHS if precision is Precision.INT8 else FLOAT_GRAPHS
    folders = dict.fromkeys((files.root, files.folder))
    graph = next((path for folder in folders for name in names if (path := folder / name).is_file()), None)
    if graph is not None:
        check_modules(files)
    return graph


class RepositoryGraphEmbedder(OnnxEmbedder):
    """Port ``Embedder`` on a repository's own graph."""

    def __init__(self, files: ModelFiles, graph: Path, *, precision: str, threads: int | None = None) -> None:
        """Load the graph.

        Raises:
            EmbeddingFailed: graph or tokenizer cannot be loaded.
            ExportRefused: the graph has inputs or outputs that are not known, or the model's pooling is not.
        """
        super().__init__(files, graph, precision=precision, threads=threads)
        self._graph_name = graph.name
        try:
            self._choose(files)
        except ExportRefused:
            self.close()
            raise

    def _choose(self, files: ModelFiles) -> None:
        session = self._session
        assert session is not None  # noqa: S101 - opened by the constructor
        inputs: Sequence[Any] = session.get_inputs()
        outputs: Sequence[Any] = session.get_outputs()
        unknown = sorted({value.name for value in inputs} - set(_INPUTS))
        if unknown:
            raise ExportRefused(f"its graph {self._graph_name} needs the inputs {', '.join(unknown)}")
        self._dtypes = {value.name: np.int32 if value.type == "tensor(int32)" else np.int64 for value in inputs}
        ranks = {value.name: len(value.shape) for value in outputs}
        tokens = next((name for name, rank in ranks.items() if rank == _TOKEN_RANK), None)
        texts = "sentence_embedding" if ranks.get("sentence_embedding") == 2 else None
        output = texts or tokens
        if output is None:
            raise ExportRefused(f"its graph {self._graph_name} returns neither token vectors nor text vectors")
        self._output = output
        self._pool = None if texts else _POOLINGS.get(files.pooling)
        if texts is None and self._pool is None:
            raise ExportRefused(f"its pooling is {files.pooling!r}")

    @property
    def runtime(self) -> str:
        """``onnxruntime-int8`` or ``onnxruntime-fp32``, followed by the name of the graph."""
        return f"{super().runtime} ({self._graph_name})"

    def _run(self, session: onnxruntime.InferenceSession, ids: list[list[int]]) -> Floats:
        array = np.array(ids, np.int64)
        feed = {name: _INPUTS[name](array).astype(dtype) for name, dtype in self._dtypes.items()}
        (values,) = session.run([self._output], feed)
        vectors = np.asarray(values, np.float32)
        if self._pool is not None:
            vectors = self._pool(vectors)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(vectors / np.maximum(lengths, 1e-12), np.float32)
