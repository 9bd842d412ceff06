"""Export a sentence-transformers model into the data directory and check that the export makes the same vectors.

``<data_dir>/models/<fingerprint>/`` holds the exports that were asked for:

| file | dense layers | used |
|---|---|---|
| ``fp32.onnx`` | float32 | runtime ``onnx-fp32``, or where an int8 export is refused |
| ``int8.onnx`` | uint8 by int8 | where such products are exact: VNNI, AMX, Arm |
| ``int8-unsigned.onnx`` | uint8 by uint8, the same integers plus 128 | where they saturate: AVX2 without VNNI |

Each has a manifest (``.json``) with its version, hash and weight type. ``probe.f32`` holds the vectors that
sentence-transformers makes of the probe texts. The eight-bit exports and the probe of the built-in model come with the
package (``shipped_model``), so it needs neither an export nor torch.

The processor is checked at every start (``saturation.int8_products_saturate``), and the export is chosen accordingly.

Data directories may move between machines and be shared by machines of both kinds. ``int8-unsigned.onnx`` is always
converted from the ``int8.onnx`` of the same directory, never quantised again, and its manifest names the hash of that
file. Both exports therefore compute equal integer products: on one machine their vectors are equal to the last bit.
Across machines float rounding differs (mean cosine .99999, lowest .9999, AVX-512 VNNI against AVX2). Stored vectors
stay valid; nothing is embedded again. Both exports belong to the model's one fingerprint.

Vectors stored by exports of version 2 have a mean cosine to the model's own of .997, or .994 if they were made on x86
without VNNI, where the products saturated. They stay searchable; embedding the documents again brings them to .998.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import json
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from threadpoolctl import threadpool_limits

from ragsvc.core.errors import EmbeddingFailed
from ragsvc.core.ports.embedding import Vectors
from ragsvc.inference.atomic_files import write_atomically
from ragsvc.inference.model_files import BUILT_IN_FINGERPRINT, ModelFiles, with_weights
from ragsvc.inference.shipped_model import FOLDER, read_manifest
from ragsvc.inference.tokens import load_tokenizer

EXPORT_VERSION = 3
"""Raised when the graph changes; older exports are replaced."""


class Precision(StrEnum):
    """Arithmetic of an export's dense layers."""

    FP32 = "fp32"
    INT8 = "int8"


class ExportRefused(Exception):
    """The model cannot be exported, or its export does not make the same vectors."""


class Agreement(msgspec.Struct, frozen=True):
    """Cosine between the export's vectors and the original's over the probe texts."""

    mean: float
    least: float

    def accepted(self, precision: Precision) -> bool:
        """Whether the export may serve: equal vectors in float32, nearly equal vectors in eight bits."""
        return self.least > 0.9999 if precision is Precision.FP32 else self.mean >= 0.99 and self.least >= 0.97


class ExportManifest(msgspec.Struct, frozen=True):
    """Describes an exported file; a file that does not match its manifest is replaced.

    ``derived_from`` is the hash of the ``int8.onnx`` that an unsigned export was converted from, otherwise empty.
    """

    version: int
    sha256: str
    weights: Literal["float32", "int8", "uint8"]
    derived_from: str = ""


def ensure_export(files: ModelFiles, precision: Precision, *, data_dir: Path) -> Path:
    """Path of the exported graph, which is made first if it is missing, damaged or of an older version (seconds).

    Raises:
        ExportRefused: there is no graph for the model's architecture.
    """
    if precision is Precision.INT8 and (shipped := _shipped_export(files, "int8")):
        return shipped
    folder = export_folder(files, data_dir=data_dir)
    graph = folder / f"{precision}.onnx"
    weights: Literal["float32", "int8"] = "float32" if precision is Precision.FP32 else "int8"
    if _intact(graph, weights) is None:
        _write_export(graph, make_graph(files, precision), weights)
    return graph


def ensure_unsigned_export(files: ModelFiles, *, data_dir: Path) -> Path:
    """Path of the int8 export with unsigned weights, converted from ``int8.onnx``, which is made first if necessary.

    Raises:
        ExportRefused: there is no graph for the model's architecture.
    """
    if shipped := _shipped_export(files, "int8-unsigned"):
        return shipped
    source = ensure_export(files, Precision.INT8, data_dir=data_dir)
    content = source.read_bytes()
    source_hash = hashlib.sha256(content).hexdigest()
    graph = source.with_name("int8-unsigned.onnx")
    found = _intact(graph, "uint8")
    if found is None or found.derived_from != source_hash:
        from ragsvc.inference.quantize import unsigned_weights  # noqa: PLC0415 - imports onnx

        _write_export(graph, unsigned_weights(content), "uint8", derived_from=source_hash)
    return graph


def export_sha256(graph: Path) -> str | None:
    """The hash of one of our exports, as its manifest states it; ``None`` for another graph."""
    if graph.parent == FOLDER:
        manifest = read_manifest()
        return f"{manifest.export_sha256}-{graph.stem}-{manifest.files[graph.name]}"
    try:
        return msgspec.json.decode(graph.with_suffix(".json").read_bytes(), type=ExportManifest).sha256
    except (OSError, msgspec.DecodeError):
        return None


def export_folder(files: ModelFiles, *, data_dir: Path) -> Path:
    """Folder of a model's exports."""
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
    """Vectors (texts, dim) of the probe texts by sentence-transformers: shipped, cached, or made in a child process.

    Raises:
        EmbeddingFailed: sentence-transformers cannot run the model.
    """
    if files.model.fingerprint == BUILT_IN_FINGERPRINT:
        return np.frombuffer(_resource("probe-all-MiniLM-L6-v2.f32"), np.float32).reshape(-1, files.model.dimension)
    cached = export_folder(files, data_dir=data_dir) / "probe.f32"
    texts = probe_texts()
    size = len(texts) * files.model.dimension * 4
    if not cached.is_file() or cached.stat().st_size != size:
        from ragsvc.inference.reference_vectors import reference_vectors  # noqa: PLC0415 - runs only once per model

        vectors = reference_vectors(files.root, texts, max_tokens=files.model.max_tokens)
        if vectors.shape != (len(texts), files.model.dimension):
            raise EmbeddingFailed(f"The model {files.model.name} makes vectors of shape {vectors.shape}.")
        write_atomically(cached, vectors.tobytes())
    return np.frombuffer(cached.read_bytes(), np.float32).reshape(len(texts), -1)


def check_modules(files: ModelFiles) -> None:
    """Refuse a model that does more than encode, pool and normalise. Raises ``ExportRefused``."""
    if files.extra_modules:
        raise ExportRefused(f"it has modules {', '.join(files.extra_modules)}")
    if not files.pools_prompt:
        raise ExportRefused("its pooling leaves prompts out")


def _shipped_export(files: ModelFiles, name: str) -> Path | None:
    """The ready-made export of the built-in model, unless it was made by another version."""
    if files.model.fingerprint != BUILT_IN_FINGERPRINT or read_manifest().export_version != EXPORT_VERSION:
        return None
    return FOLDER / f"{name}.onnx"


def make_graph(files: ModelFiles, precision: Precision) -> bytes:
    """Build and serialise the graph (seconds of processor time in eight bits).

    Raises:
        ExportRefused: there is no graph for the model's architecture, or its weights are not installed.
    """
    from ragsvc.inference import bert_graph, quantize  # noqa: PLC0415 - import onnx: needed by the first start only

    check_modules(files)
    try:
        files = with_weights(files)
    except EmbeddingFailed as error:
        raise ExportRefused(error.message) from error
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
    # one BLAS thread: with two on two busy cores this takes 15 s of processor time, mostly spinning, instead of 5
    with threadpool_limits(1, user_api="blas"):
        statistics = quantize.calibrate(weights, batches)
        return bytes(bert_graph.build_graph(weights, quantize.QuantisedProjections(statistics)).SerializeToString())


def _write_export(
    graph: Path, content: bytes, weights: Literal["float32", "int8", "uint8"], *, derived_from: str = ""
) -> None:
    write_atomically(graph, content)
    manifest = ExportManifest(
        version=EXPORT_VERSION,
        sha256=hashlib.sha256(content).hexdigest(),
        weights=weights,
        derived_from=derived_from,
    )
    write_atomically(graph.with_suffix(".json"), msgspec.json.encode(manifest))


def _intact(graph: Path, weights: str) -> ExportManifest | None:
    """The manifest of ``graph``, or ``None`` if the file must be made again."""
    try:
        manifest = msgspec.json.decode(graph.with_suffix(".json").read_bytes(), type=ExportManifest)
        with graph.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
    except (OSError, msgspec.DecodeError):
        return None
    matches = (manifest.version, manifest.sha256, manifest.weights) == (EXPORT_VERSION, found, weights)
    return manifest if matches else None


def _resource(name: str) -> bytes:
    return (importlib.resources.files("ragsvc.inference") / "data" / name).read_bytes()
