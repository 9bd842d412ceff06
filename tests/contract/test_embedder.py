"""What every ``Embedder`` and ``TokenSpans`` promises: reference runtime, accelerated runtimes and fake alike."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ragsvc.core.errors import EmbeddingFailed
from ragsvc.core.ports.embedding import Embedder
from ragsvc.core.ports.parsing import TokenSpans
from ragsvc.inference.export import Precision, ensure_export, probe_texts, probe_vectors
from ragsvc.inference.factory import open_embedder, open_token_spans
from ragsvc.inference.model_files import BUILT_IN, read_model
from ragsvc.inference.onnx_embedder import OnnxEmbedder
from ragsvc.inference.saturation import int8_products_saturate
from ragsvc.testing.fakes import FakeEmbedder, FakeTokenSpans

MIXED = [
    "A dog runs.",
    "",
    "Net revenue rose 5 % in 2022.",
    "word " * 400,
    "合同自双方签字之日起生效。",
    "a",
    "A dog runs.",
]
REAL = ["onnx-int8", "onnx-fp32", "sentence-transformers"]


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module", params=["fake", *(pytest.param(runtime, marks=pytest.mark.model) for runtime in REAL)])
def embedder(request: pytest.FixtureRequest, data_dir: Path) -> Iterator[Embedder]:
    opened = FakeEmbedder() if request.param == "fake" else open_embedder(data_dir=data_dir, runtime=request.param)
    yield opened
    opened.close()


def test_vectors_are_unit_rows_of_contiguous_float32(embedder: Embedder) -> None:
    for vectors in (embedder.embed_passages(MIXED), embedder.embed_queries(MIXED)):
        assert vectors.shape == (len(MIXED), embedder.model.dimension)
        assert vectors.dtype == np.float32
        assert vectors.flags.c_contiguous
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_no_texts_give_no_rows(embedder: Embedder) -> None:
    assert embedder.embed_passages([]).shape == (0, embedder.model.dimension)
    assert embedder.embed_queries([]).shape == (0, embedder.model.dimension)
    assert embedder.count_tokens([]) == []


def test_order_is_kept_and_a_vector_does_not_depend_on_its_neighbours(embedder: Embedder) -> None:
    together = embedder.embed_passages(MIXED)
    alone = np.concatenate([embedder.embed_passages([text]) for text in MIXED])
    np.testing.assert_allclose(together, alone, atol=2e-6)


def test_queries_and_passages_share_a_space_where_no_prompt_divides_them(embedder: Embedder) -> None:
    np.testing.assert_allclose(embedder.embed_queries(MIXED), embedder.embed_passages(MIXED), atol=2e-6)


def test_near_texts_are_nearer_than_far_ones(embedder: Embedder) -> None:
    query, near, far = embedder.embed_passages(
        ["the net revenue of the company rose", "the net revenue of the company rose in 2022", "cats sleep on sofas"]
    )
    assert query @ near > query @ far + 0.2


def test_text_beyond_the_limit_is_counted_and_does_not_change_the_vector(embedder: Embedder) -> None:
    limit = embedder.model.max_tokens
    long, longer = "word " * (limit + 10), "word " * (limit + 10) + "other words follow"
    assert embedder.count_tokens([long, longer]) == [limit + 12, limit + 15]
    first, second = embedder.embed_passages([long, longer])
    np.testing.assert_allclose(first, second, atol=1e-6)


def test_words_of_latin_script_are_known(embedder: Embedder) -> None:
    for text in ("", "2022?", "How did Apple's net sales change?", "Wie entwickelte sich der Umsatz für 2022?", "café"):
        assert embedder.knows(text)


def test_concurrent_callers_get_their_own_vectors(embedder: Embedder) -> None:
    expected = embedder.embed_passages(MIXED)
    with ThreadPoolExecutor(len(MIXED)) as callers:
        found = list(callers.map(lambda text: embedder.embed_passages([text])[0], MIXED * 3))
    np.testing.assert_allclose(found, np.concatenate([expected] * 3), atol=2e-6)


@pytest.mark.model
@pytest.mark.parametrize(("runtime", "tolerance"), [("onnx-fp32", 1e-3), ("sentence-transformers", 1e-3)])
def test_vectors_are_the_recorded_ones(runtime: str, tolerance: float, data_dir: Path) -> None:
    opened = open_embedder(data_dir=data_dir, runtime=runtime)  # type: ignore[arg-type] - parametrised literal
    golden = probe_vectors(read_model(BUILT_IN, data_dir=data_dir), data_dir=data_dir)
    np.testing.assert_allclose(opened.embed_passages(probe_texts()), golden, atol=tolerance)
    opened.close()


@pytest.mark.model
@pytest.mark.parametrize("int8_saturates", [False, True], ids=["signed", "unsigned"])
def test_eight_bits_keep_the_direction(data_dir: Path, *, int8_saturates: bool) -> None:
    if int8_products_saturate() and not int8_saturates:
        pytest.skip("the signed export is not used on this processor: its products saturate")
    opened = open_embedder(data_dir=data_dir, runtime="onnx-int8", int8_saturates=int8_saturates)
    golden = probe_vectors(read_model(BUILT_IN, data_dir=data_dir), data_dir=data_dir)
    cosines = (opened.embed_passages(probe_texts()) * golden).sum(axis=1)
    assert cosines.mean() >= 0.997
    assert cosines.min() > 0.99
    opened.close()


@pytest.mark.model
def test_the_signed_export_keeps_the_direction_on_every_processor(data_dir: Path, tmp_path: Path) -> None:
    """Computes the signed export in float32, because its integer products saturate on some processors."""
    files = read_model(BUILT_IN, data_dir=data_dir)
    graph = tmp_path / "float-products.onnx"
    graph.write_bytes(float_products(ensure_export(files, Precision.INT8, data_dir=data_dir)))
    exact = OnnxEmbedder(files, graph, precision="int8")
    unsigned = open_embedder(data_dir=data_dir, runtime="onnx-int8", int8_saturates=True)
    vectors = exact.embed_passages(probe_texts())
    cosines = (vectors * probe_vectors(files, data_dir=data_dir)).sum(axis=1)
    assert cosines.mean() >= 0.997
    assert cosines.min() > 0.99
    assert (vectors * unsigned.embed_passages(probe_texts())).sum(axis=1).min() > 0.999
    exact.close()
    unsigned.close()


def float_products(export: Path) -> bytes:
    """The export with each integer product replaced by a float32 product of the same integers."""
    model = onnx.load(export)
    constants = {constant.name: numpy_helper.to_array(constant) for constant in model.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.op_type != "MatMulIntegerToFloat":
            nodes.append(node)
            continue
        left, right, left_scale, right_scale, left_zero, right_zero, *bias = node.input
        output = node.output[0]
        scale = constants[left_scale] * constants[right_scale]
        for name, value in (
            (f"{output}.scale", np.asarray(scale, np.float32)),
            (f"{output}.left_zero", constants[left_zero].astype(np.float32)),
            (f"{output}.right_zero", constants[right_zero].astype(np.float32)),
        ):
            model.graph.initializer.append(numpy_helper.from_array(value, name))
        for side, operand in (("left", left), ("right", right)):
            nodes.append(helper.make_node("Cast", [operand], [f"{output}.{side}_raw"], to=TensorProto.FLOAT))
            nodes.append(
                helper.make_node("Sub", [f"{output}.{side}_raw", f"{output}.{side}_zero"], [f"{output}.{side}"])
            )
        last = f"{output}.scaled" if bias else output
        nodes.append(helper.make_node("MatMul", [f"{output}.left", f"{output}.right"], [f"{output}.product"]))
        nodes.append(helper.make_node("Mul", [f"{output}.product", f"{output}.scale"], [last]))
        if bias:
            nodes.append(helper.make_node("Add", [last, bias[0]], [output]))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("runtime", ["fake", *(pytest.param(runtime, marks=pytest.mark.model) for runtime in REAL)])
def test_a_closed_embedder_says_so(runtime: str, data_dir: Path) -> None:
    opened = FakeEmbedder() if runtime == "fake" else open_embedder(data_dir=data_dir, runtime=runtime)  # type: ignore[arg-type] - parametrised literal
    opened.close()
    with pytest.raises(EmbeddingFailed):
        opened.embed_passages(["text"])
    with pytest.raises(EmbeddingFailed):
        opened.embed_queries(["text"])


@pytest.fixture(params=["fake", "tokenizer"])
def tokens(request: pytest.FixtureRequest, data_dir: Path) -> TokenSpans:
    return FakeTokenSpans() if request.param == "fake" else open_token_spans(data_dir=data_dir)


@pytest.mark.parametrize(
    "text", ["", "Net revenue rose 5 % in 2022.", "naïve “façade” 😀 ﬁn", "word " * 1000, "合同生效"]
)
def test_spans_are_ordered_within_the_text_and_as_many_as_counted(tokens: TokenSpans, text: str) -> None:
    spans = tokens.spans(text)
    assert tokens.count([text]) == [len(spans)]
    assert all(0 <= start <= end <= len(text) for start, end in spans)
    assert all(before[1] <= after[0] or before == after for before, after in pairwise(spans))
    visible = {index for start, end in spans for index in range(start, end)}
    assert all(text[index].isspace() for index in set(range(len(text))) - visible)


def test_a_tokenizer_survives_pickling(data_dir: Path) -> None:
    spans = open_token_spans(data_dir=data_dir)
    assert pickle.loads(pickle.dumps(spans)).spans("two words") == spans.spans("two words") == [(0, 3), (4, 9)]  # noqa: S301 - our own bytes
