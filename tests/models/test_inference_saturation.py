"""Int8 matrix products on processors without VNNI: where they saturate, and that the unsigned export does not."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ragsvc.inference import export as exporting
from ragsvc.inference.export import (
    ExportManifest,
    Precision,
    ensure_export,
    ensure_unsigned_export,
    export_folder,
    probe_texts,
)
from ragsvc.inference.factory import open_embedder
from ragsvc.inference.model_files import BUILT_IN, read_model
from ragsvc.inference.quantize import round_weights, unsigned_weights
from ragsvc.inference.saturation import int8_products_saturate
from ragsvc.inference.shipped_model import FOLDER

ROOT = Path(__file__).resolve().parents[2]
EMULATOR = shutil.which("qemu-x86_64")

Integers = npt.NDArray[np.int64]


def maddubs(activations: Integers, weights: Integers) -> Integers:
    """Product (rows, inputs) @ (inputs, outputs) of uint8 by int8 as AVX2 computes it.

    ``vpmaddubsw`` multiplies neighbouring inputs and saturates the sum of the two products at 16 bits; ``vpmaddwd``
    and ``vpaddd`` then add those sums in 32 bits.
    """
    assert activations.min() >= 0
    assert activations.max() <= 255
    assert weights.min() >= -128
    assert weights.max() <= 127
    even = activations[:, 0::2, None] * weights[None, 0::2]
    odd = activations[:, 1::2, None] * weights[None, 1::2]
    return np.clip(even + odd, -32768, 32767).sum(axis=1)


def maddwd(activations: Integers, weights: Integers) -> Integers:
    """Product of uint8 by uint8 as AVX2 computes it: ``vpmovzxbw``, then ``vpmaddwd`` with wrapping 32-bit sums."""
    assert min(activations.min(), weights.min()) >= 0
    assert max(activations.max(), weights.max()) <= 255
    pairs = activations[:, 0::2, None] * weights[None, 0::2] + activations[:, 1::2, None] * weights[None, 1::2]
    return np.asarray(pairs.astype(np.int32).sum(axis=1, dtype=np.int32), np.int64)


def worst_activations(weights: Integers) -> Integers:
    """Two rows: 255 where the first output's weights are positive, and 255 where they are negative."""
    first = weights[:, 0]
    return np.stack([np.where(first > 0, 255, 0), np.where(first < 0, 255, 0)]).astype(np.int64)


def weights_of(graph: Path) -> list[Integers]:
    """Integer weight matrices of an export, in the order of its file."""
    constants = onnx.load(graph).graph.initializer
    kinds = {TensorProto.INT8, TensorProto.UINT8}
    return [
        numpy_helper.to_array(constant).astype(np.int64)
        for constant in constants
        if constant.data_type in kinds and len(constant.dims) == 2
    ]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data directory of a later version of the exports, for which those that ship with the package do not count."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting, "EXPORT_VERSION", exporting.EXPORT_VERSION + 1)
        yield tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def exports(data_dir: Path) -> tuple[Path, Path]:
    """The signed and the unsigned export of the built-in model, made from its float weights."""
    files = read_model(BUILT_IN, data_dir=data_dir)
    return ensure_export(files, Precision.INT8, data_dir=data_dir), ensure_unsigned_export(files, data_dir=data_dir)


@pytest.mark.parametrize(("inputs", "outputs"), [(64, 16), (384, 32)])
def test_emulated_signed_products_saturate_and_unsigned_products_are_exact(inputs: int, outputs: int) -> None:
    random = np.random.default_rng(inputs)
    weights = random.integers(-127, 128, (inputs, outputs))
    for activations in (random.integers(0, 256, (8, inputs)), worst_activations(weights)):
        exact = activations @ weights
        assert (maddubs(activations, weights) != exact).any()
        zero_points = 128 * activations.sum(axis=1, keepdims=True)
        np.testing.assert_array_equal(maddwd(activations, weights + 128) - zero_points, exact)
    largest = np.full((1, inputs), 255)
    np.testing.assert_array_equal(maddwd(largest, np.full((inputs, 1), 255)), 255 * 255 * inputs)


@pytest.mark.model
def test_weights_of_the_model_saturate_signed_and_never_unsigned(exports: tuple[Path, Path]) -> None:
    signed, unsigned = (weights_of(graph) for graph in exports)
    assert len(signed) == len(unsigned) == 36
    saturating = 0
    for weights, raised in zip(signed, unsigned, strict=True):
        np.testing.assert_array_equal(raised, weights + 128)
        activations = worst_activations(weights)
        exact = activations @ weights
        saturating += bool((maddubs(activations, weights) != exact).any())
        zero_points = 128 * activations.sum(axis=1, keepdims=True)
        np.testing.assert_array_equal(maddwd(activations, raised) - zero_points, exact)
    assert saturating > 0


def test_the_processor_check_computes_one_integer_product() -> None:
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["activations", "weights"], ["product"])],
        "int8-product",
        [
            helper.make_tensor_value_info("activations", TensorProto.UINT8, ["rows", "inputs"]),
            helper.make_tensor_value_info("weights", TensorProto.INT8, ["inputs", "outputs"]),
        ],
        [helper.make_tensor_value_info("product", TensorProto.INT32, ["rows", "outputs"])],
    )
    expected = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    shipped = (ROOT / "ragsvc" / "inference" / "data" / "int8-product.onnx").read_bytes()
    assert onnx.ModelProto.FromString(shipped) == expected


@pytest.mark.skipif(sys.platform != "linux" or platform.machine() != "x86_64", reason="reads Linux' flags of x86")
def test_processors_with_vnni_do_not_saturate_and_those_with_avx2_alone_do() -> None:
    found = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags"))
    flags = set(found.split())
    exact = {"avx512_vnni", "avx_vnni", "amx_int8"} & flags or "avx2" not in flags
    assert int8_products_saturate() is not bool(exact)


@pytest.mark.model
def test_signed_and_unsigned_exports_make_equal_vectors_wherever_products_are_exact(
    data_dir: Path, exports: tuple[Path, Path]
) -> None:
    vectors = []
    for saturates in (False, True):
        opened = open_embedder(data_dir=data_dir, runtime="onnx-int8", int8_saturates=saturates)
        assert opened.runtime == "onnxruntime-int8"
        vectors.append(opened.embed_passages(probe_texts()))
        opened.close()
    signed, unsigned = vectors
    if int8_products_saturate():
        assert (signed * unsigned).sum(axis=1).mean() >= 0.99
    else:
        np.testing.assert_allclose(signed, unsigned, rtol=0, atol=1e-6)
    assert all(graph.is_file() for graph in exports)


@pytest.mark.model
@pytest.mark.parametrize("saturates", [True, False])
def test_the_export_is_chosen_for_the_processor_and_recorded(
    exports: tuple[Path, Path], data_dir: Path, tmp_path: Path, *, saturates: bool
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(data_dir, moved)
    folder = export_folder(read_model(BUILT_IN, data_dir=moved), data_dir=moved)
    for file in folder.glob(f"{exports[1].stem}.*"):
        file.unlink()
    opened = open_embedder(data_dir=moved, runtime="onnx-int8", int8_saturates=saturates)
    opened.close()
    recorded = {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}
    assert {name: manifest["weights"] for name, manifest in recorded.items()} == (
        {"int8": "int8", "int8-unsigned": "uint8"} if saturates else {"int8": "int8"}
    )
    if saturates:
        assert recorded["int8-unsigned"]["derived_from"] == recorded["int8"]["sha256"]


@pytest.mark.model
def test_an_unsigned_export_of_another_source_or_version_is_converted_again(
    exports: tuple[Path, Path], data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(data_dir, tmp_path / "moved")
    moved = tmp_path / "moved"
    files = read_model(BUILT_IN, data_dir=moved)
    monkeypatch.setattr(exporting, "make_graph", None)  # neither call may quantise again
    unsigned = export_folder(files, data_dir=moved) / "int8-unsigned.onnx"
    content, manifest = unsigned.read_bytes(), unsigned.with_suffix(".json")
    described = json.loads(manifest.read_bytes())
    for change in ({"derived_from": "0" * 64}, {"version": 2}, {"sha256": "0" * 64}, {"weights": "int8"}):
        manifest.write_text(json.dumps(described | change))
        unsigned.write_bytes(b"replaced")
        assert ensure_unsigned_export(files, data_dir=moved).read_bytes() == content
        assert json.loads(manifest.read_bytes()) == described
    assert exports[1].read_bytes() == content
    assert ExportManifest(**described).derived_from


@pytest.mark.model
def test_the_exports_that_ship_are_those_that_would_be_made(exports: tuple[Path, Path]) -> None:
    """Large constants were moved to separate files.

    If another processor calibrated the ranges, few integers differ, and few constants that correct their errors.
    """
    for made in exports:
        graphs = [onnx.load(folder / made.name).graph for folder in (made.parent, FOLDER)]
        assert [node.SerializeToString() for node in graphs[0].node] == [
            node.SerializeToString() for node in graphs[1].node
        ]
        for constant, shipped in zip(graphs[0].initializer, graphs[1].initializer, strict=True):
            values, found = numpy_helper.to_array(constant), numpy_helper.to_array(shipped)
            assert (constant.name, values.dtype, values.shape) == (shipped.name, found.dtype, found.shape)
            if values.dtype == np.float32:
                assert np.isclose(found, values, rtol=1e-3, atol=1e-3).mean() > 0.98
            else:
                assert (found != values).mean() < 0.02


def test_conversion_keeps_every_other_constant() -> None:
    constants = {
        "weights": np.array([[-128, -1], [0, 127]], np.int8),
        "zero": np.array(0, np.int8),
        "scale": np.array(0.5, np.float32),
        "activation zero": np.array(7, np.uint8),
    }
    graph = helper.make_graph(
        [], "graph", [], [], [numpy_helper.from_array(value, name) for name, value in constants.items()]
    )
    converted = onnx.ModelProto.FromString(unsigned_weights(helper.make_model(graph).SerializeToString()))
    found = {constant.name: numpy_helper.to_array(constant) for constant in converted.graph.initializer}
    assert found["weights"].tolist() == [[0, 127], [128, 255]]
    assert found["zero"] == 128
    assert found["weights"].dtype == found["zero"].dtype == np.uint8
    assert found["scale"] == constants["scale"]
    assert found["activation zero"] == 7


def test_compensated_rounding_has_a_smaller_output_error_than_rounding_to_nearest() -> None:
    random = np.random.default_rng(2)
    inputs = random.normal(size=(600, 150)).astype(np.float32) @ random.normal(size=(150, 150)).astype(np.float32)
    inputs -= inputs.mean(axis=0)
    weights = random.normal(size=(150, 20)).astype(np.float32)
    scales = np.abs(weights).max(0) / np.float32(127)
    rounded = round_weights(weights, scales, inputs.T @ inputs / np.float32(len(inputs)))
    nearest = np.rint(weights / scales)
    assert rounded.dtype == np.int8
    assert np.abs(rounded - weights / scales).max() > 0.5
    compensated_error, nearest_error = (
        float(((inputs @ (weights - values * scales)) ** 2).mean()) for values in (rounded, nearest)
    )
    assert compensated_error < 0.7 * nearest_error


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.skipif(EMULATOR is None or platform.machine() != "x86_64", reason="needs qemu-x86_64 (package qemu-user)")
def test_an_emulated_processor_with_avx2_alone_makes_the_same_vectors(
    data_dir: Path, exports: tuple[Path, Path], tmp_path: Path
) -> None:
    texts = probe_texts()[:6]
    program = (
        "import json, pathlib, sys\n"
        "import numpy\n"
        "from ragsvc.inference import export\n"
        "from ragsvc.inference.factory import open_embedder\n"
        "from ragsvc.inference.saturation import int8_products_saturate\n"
        "export.EXPORT_VERSION += 1\n"  # as for this process: the exports of the data directory, not those that ship
        "embedder = open_embedder(data_dir=pathlib.Path(sys.argv[1]), runtime='onnx-int8')\n"
        "numpy.save(sys.argv[2], embedder.embed_queries(json.loads(sys.argv[3])))\n"
        "print(int8_products_saturate())\n"
    )
    result = tmp_path / "vectors.npy"
    done = subprocess.run(
        [
            *(str(EMULATOR), "-cpu", "Haswell"),
            *(sys.executable, "-c", program, str(data_dir), str(result), json.dumps(texts)),
        ],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout.strip() == "True"
    assert exports[1].is_file()
    opened = open_embedder(data_dir=data_dir, runtime="onnx-int8")
    cosines = (opened.embed_queries(texts) * np.load(result)).sum(axis=1)
    opened.close()
    assert cosines.min() > 0.999
