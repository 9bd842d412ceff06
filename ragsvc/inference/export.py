"""Export a sentence-transformers model once into the data directory, and prove that the export makes its vectors.

``<data_dir>/models/<fingerprint>/`` holds ``int8.onnx`` and ``fp32.onnx`` (those that were asked for), a manifest with
the hash of each, and ``probe.npy``: what sentence-transformers itself makes of the probe texts. For the built-in
model those vectors come with the package, so that its first start needs no torch.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import json
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path

import msgspec
import numpy as np

from ragsvc.core.errors import EmbeddingFailed
from ragsvc.core.ports.embedding import Vectors
from ragsvc.inference.model_files import BUILT_IN_FINGERPRINT, ModelFiles, write_atomically

EXPORT_VERSION = 2
"""Raised when the graph changes; older exports are made anew."""


class Precision(StrEnum):
    """How the dense layers of an export compute."""

    FP32 = "fp32"
    INT8 = "int8"


class ExportRefused(Exception):
    """This model cannot be exported, or its export does not make the same vectors."""


class Agreement(msgspec.Struct, frozen=True):
    """Cosine between the export's vectors and the original's over the probe texts."""

    mean: float
    least: float

    def accepted(self, precision: Precision) -> bool:
        """Whether the export may serve: equal vectors in float, nearly equal ones in eight bits."""
        return self.least > 0.9999 if precision is Precision.FP32 else self.mean >= 0.99 and self.least >= 0.97


class Manifest(msgspec.Struct, frozen=True):
    """What an exported file is; a file that does not fit its manifest is made anew."""

    version: int
    sha256: str


def ensure_export(files: ModelFiles, precision: Precision, *, data_dir: Path) -> Path:
    """The exported graph, made now if it is missing, torn or of an older version (seconds).

    Raises:
        ExportRefused: the model is of an architecture that has no graph here.
    """
    folder = export_folder(files, data_dir=data_dir)
    graph, manifest = folder / f"{precision}.onnx", folder / f"{precision}.json"
    if not _intact(graph, manifest):
        content = _make_graph(files, precision)
        write_atomically(graph, content)
        described = Manifest(version=EXPORT_VERSION, sha256=hashlib.sha256(content).hexdigest())
        write_atomically(manifest, msgspec.json.encode(described))
    return graph


def export_folder(files: ModelFiles, *, data_dir: Path) -> Path:
    """Where the exports of a model lie."""
    return data_dir / "models" / files.model.fingerprint


def check_agreement(
    files: ModelFiles, embed: Callable[[Sequence[str]], Vectors], precision: Precision, *, data_dir: Path
) -> Agreement:
    """Compare ``embed`` (no prompts) with sentence-transformers over the probe texts.

    Raises:
        ExportRefused: the vectors differ.
    """
    cosines = (embed(probe_texts()) * probe_vectors(files, data_dir=data_dir)).sum(axis=1)
    agreement = Agreement(mean=float(cosines.mean()), least=float(cosines.min()))
    if not agreement.accepted(precision):
        raise ExportRefused(
            f"the {precision} export differs from the original: mean cosine {agreement.mean:.4f}, "
            f"least {agreement.least:.4f}"
        )
    return agreement


def probe_texts() -> list[str]:
    """The fixed texts on which runtimes are compared."""
    texts: list[str] = json.loads(_resource("probe.json").decode("utf-8"))
    return texts


def probe_vectors(files: ModelFiles, *, data_dir: Path) -> Vectors:
    """The original's vectors of the probe texts (texts, dim): shipped, remembered, or made by a child process.

    Raises:
        EmbeddingFailed: sentence-transformers cannot run the model.
    """
    if files.model.fingerprint == BUILT_IN_FINGERPRINT:
        return np.frombuffer(_resource("probe-all-MiniLM-L6-v2.f32"), np.float32).reshape(-1, files.model.dimension)
    remembered = export_folder(files, data_dir=data_dir) / "probe.f32"
    texts = probe_texts()
    size = len(texts) * files.model.dimension * 4
    if not remembered.is_file() or remembered.stat().st_size != size:
        from ragsvc.inference.reference_vectors import reference_vectors  # noqa: PLC0415 - runs only once per model

        vectors = reference_vectors(files.root, texts)
        if vectors.shape != (len(texts), files.model.dimension):
            raise EmbeddingFailed(f"{files.model.name} makes vectors of shape {vectors.shape}")
        write_atomically(remembered, vectors.tobytes())
    return np.frombuffer(remembered.read_bytes(), np.float32).reshape(len(texts), -1)


def _make_graph(files: ModelFiles, precision: Precision) -> bytes:
    from ragsvc.inference import bert_graph, quantize  # noqa: PLC0415 - import onnx: only the first start does
    from ragsvc.inference.tokens import load_tokenizer  # noqa: PLC0415 - beside its user

    if files.extra_modules:
        raise ExportRefused(f"it has modules {', '.join(files.extra_modules)}")
    if not files.pools_prompt:
        raise ExportRefused("its pooling leaves prompts out")
    try:
        weights = bert_graph.load_bert(
            files.folder, files.config, pooling=files.pooling, max_tokens=files.model.max_tokens
        )
    except bert_graph.UnsupportedArchitecture as error:
        raise ExportRefused(f"no fast graph for {error}") from error
    if precision is Precision.FP32:
        return bytes(bert_graph.build_graph(weights, bert_graph.FloatProjections()).SerializeToString())
    tokenizer = load_tokenizer(files.tokenizer_file, max_tokens=files.model.max_tokens)
    texts = _resource("calibration.txt").decode("utf-8").split("\n\n")
    batches = (np.array([encoding.ids], np.int32) for encoding in tokenizer.encode_batch_fast(texts))
    ranges = quantize.calibrate(weights, batches)
    return bytes(bert_graph.build_graph(weights, quantize.QuantisedProjections(ranges)).SerializeToString())


def _intact(graph: Path, manifest: Path) -> bool:
    try:
        described = msgspec.json.decode(manifest.read_bytes(), type=Manifest)
        with graph.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
    except (OSError, msgspec.DecodeError):
        return False
    return described.version == EXPORT_VERSION and found == described.sha256


def _resource(name: str) -> bytes:
    return (importlib.resources.files("ragsvc.inference") / "data" / name).read_bytes()
