"""The accelerated runtime: what it imports, when it is refused, how lanes and other models behave."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from ragsvc.core.errors import ConfigurationError, EmbeddingFailed
from ragsvc.inference.cross_encoder import CrossEncoderReranker
from ragsvc.inference.export import Precision, ensure_export, export_folder
from ragsvc.inference.factory import open_embedder
from ragsvc.inference.model_files import BUILT_IN, read_model
from ragsvc.inference.onnx_embedder import equal_length_batches

ROOT = Path(__file__).resolve().parents[2]


def make_tiny_model(folder: Path, *, pooling: str = "mean", model_type: str = "bert", prompts: bool = False) -> Path:
    """A random two-layer model saved by sentence-transformers itself."""
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415 - seconds: only tests marked model pay
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer  # noqa: PLC0415 - same

    base = folder.parent / f"{folder.name}-base"
    make_tiny_transformer(base, model_type=model_type)
    transformer = Transformer(str(base))
    pooled = Pooling(transformer.get_embedding_dimension(), pooling_mode=pooling)
    given = {"query": "query: ", "passage": "passage: "} if prompts else None
    SentenceTransformer(modules=[transformer, pooled], device="cpu", prompts=given).save(str(folder))
    return folder


def make_tiny_transformer(folder: Path, *, model_type: str, labels: int = 0) -> None:
    import torch  # noqa: PLC0415 - same
    import transformers  # noqa: PLC0415 - same

    torch.manual_seed(3)
    sizes = {"vocab_size": 30522, "max_position_embeddings": 64}
    if model_type == "distilbert":
        model = transformers.DistilBertModel(
            transformers.DistilBertConfig(dim=32, n_layers=2, n_heads=4, hidden_dim=64, **sizes)
        )
    else:
        config = transformers.BertConfig(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, **sizes
        )
        if labels:
            config.num_labels = labels
            model = transformers.BertForSequenceClassification(config)
        else:
            model = transformers.BertModel(config)
    model.save_pretrained(str(folder))
    transformers.AutoTokenizer.from_pretrained(str(read_model(BUILT_IN, data_dir=folder).folder)).save_pretrained(
        str(folder)
    )


def test_batches_hold_equal_lengths_and_every_row_once() -> None:
    lengths = [3, 7, 3, 600, 7, 7, 1, 3]
    batches = list(equal_length_batches(lengths, batch_tokens=14))
    assert sorted(row for batch in batches for row in batch) == list(range(8))
    assert all(len({lengths[row] for row in batch}) == 1 for batch in batches)
    assert batches[0] == [3]
    assert all(len(batch) * lengths[batch[0]] <= 14 for batch in batches[1:])


@pytest.mark.model
def test_serving_imports_no_heavy_library(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib\n"
        "from ragsvc.inference.factory import open_embedder, open_token_spans\n"
        "import ragsvc.inference.batcher, ragsvc.inference.cross_encoder\n"
        "data = pathlib.Path(sys.argv[1])\n"
        "for _ in range(2):\n"
        "    embedder = open_embedder(data_dir=data)\n"
        "    embedder.embed_passages(['a passage']); embedder.embed_queries(['a query']); embedder.close()\n"
        "open_token_spans(data_dir=data).count(['a'])\n"
        "heavy = {'torch', 'transformers', 'sentence_transformers', 'huggingface_hub', 'sympy', 'scipy'}\n"
        "print(embedder.runtime, sorted(heavy & set(sys.modules)))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.strip() == "onnxruntime-int8 []"


@pytest.mark.model
def test_the_built_in_model_needs_no_export(tmp_path: Path) -> None:
    for saturates in (False, True):
        open_embedder(data_dir=tmp_path, runtime="onnx-int8", int8_saturates=saturates).close()
    written = {path.name for path in (tmp_path / "models").iterdir()}
    assert written == {"fingerprints.json", "agreements.json"}  # and no graph


@pytest.mark.model
def test_a_torn_export_is_made_anew(tmp_path: Path) -> None:
    files = read_model(BUILT_IN, data_dir=tmp_path)
    graph = ensure_export(files, Precision.FP32, data_dir=tmp_path)
    content = graph.read_bytes()
    graph.write_bytes(content[: len(content) // 2])
    ensure_export(files, Precision.FP32, data_dir=tmp_path)
    assert graph.read_bytes() == content
    assert sorted(path.name for path in graph.parent.iterdir()) == ["fp32.json", "fp32.onnx"]


@pytest.mark.model
def test_an_export_that_makes_other_vectors_is_refused_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_tiny_model(tmp_path / "tiny")
    files = read_model(str(folder), data_dir=tmp_path)
    wrong = np.full((17, 32), 32**-0.5, np.float32)
    remembered = export_folder(files, data_dir=tmp_path) / "probe.f32"
    remembered.parent.mkdir(parents=True)
    remembered.write_bytes(wrong.tobytes())
    with pytest.raises(EmbeddingFailed, match="differs from the original"):
        open_embedder(str(folder), data_dir=tmp_path, runtime="onnx-fp32")
    with caplog.at_level(logging.WARNING):
        fallback = open_embedder(str(folder), data_dir=tmp_path)
    assert fallback.runtime.startswith("sentence-transformers (fallback: ")
    assert "differs from the original" in caplog.text
    fallback.close()


@pytest.mark.model
@pytest.mark.parametrize(("pooling", "prompts"), [("mean", True), ("cls", False)])
def test_other_models_of_the_family_make_the_originals_vectors(tmp_path: Path, pooling: str, *, prompts: bool) -> None:
    folder = make_tiny_model(tmp_path / "tiny", pooling=pooling, prompts=prompts)
    texts = ["A dog runs.", "", "Net revenue rose 5 % in 2022. " * 20]
    fast = open_embedder(str(folder), data_dir=tmp_path, runtime="onnx-fp32")
    original = open_embedder(str(folder), data_dir=tmp_path, runtime="sentence-transformers")
    np.testing.assert_allclose(fast.embed_passages(texts), original.embed_passages(texts), atol=1e-4)
    np.testing.assert_allclose(fast.embed_queries(texts), original.embed_queries(texts), atol=1e-4)
    assert np.allclose(fast.embed_queries(texts), fast.embed_passages(texts)) is not prompts
    assert fast.model == original.model


@pytest.mark.model
def test_an_architecture_without_a_graph_runs_on_sentence_transformers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_tiny_model(tmp_path / "tiny", model_type="distilbert")
    with caplog.at_level(logging.WARNING):
        opened = open_embedder(str(folder), data_dir=tmp_path)
    assert opened.runtime == "sentence-transformers (fallback: no fast graph for architecture 'distilbert')"
    assert opened.embed_passages(["text"]).shape == (1, 32)
    assert "slow" in caplog.text
    with pytest.raises(EmbeddingFailed, match="distilbert"):
        open_embedder(str(folder), data_dir=tmp_path, runtime="onnx")


@pytest.mark.model
@pytest.mark.skipif(sys.platform != "linux", reason="threads have no niceness of their own elsewhere")
def test_passages_run_on_niced_threads_and_queries_on_the_callers(tmp_path: Path) -> None:
    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    opened = open_embedder(data_dir=tmp_path, runtime="onnx-fp32", threads=2)
    opened.embed_passages(["a", "b c", "d e f"])
    opened.embed_queries(["query"])
    workers = {
        thread.native_id: os.getpriority(os.PRIO_PROCESS, thread.native_id or 0)
        for thread in threading.enumerate()
        if thread.name.startswith("embed")
    }
    assert workers
    assert all(niceness == min(19, before + 15) or niceness == 15 for niceness in workers.values())
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before
    opened.close()


@pytest.mark.model
def test_a_cross_encoder_scores_pairs_between_nought_and_one(tmp_path: Path) -> None:
    make_tiny_transformer(tmp_path / "cross", model_type="bert", labels=1)
    reranker = CrossEncoderReranker(tmp_path / "cross", max_tokens=64)
    texts = ["the net revenue", "cats sleep", "", "word " * 500]
    scores = reranker.score("net revenue", texts)
    assert scores.shape == (4,)
    assert scores.dtype == np.float32
    assert ((scores > 0) & (scores < 1)).all()
    assert len(set(scores.tolist())) == 4
    np.testing.assert_allclose(reranker.score("net revenue", texts[::-1]), scores[::-1], atol=1e-6)
    assert reranker.score("net revenue", []).shape == (0,)
    assert reranker.name == "cross"


@pytest.mark.model
def test_a_classifier_is_no_reranker(tmp_path: Path) -> None:
    make_tiny_transformer(tmp_path / "labels", model_type="bert", labels=3)
    with pytest.raises(ConfigurationError, match="3 labels"):
        CrossEncoderReranker(tmp_path / "labels")
    with pytest.raises(EmbeddingFailed):
        CrossEncoderReranker(tmp_path / "nothing")


def test_the_probe_is_not_part_of_the_calibration() -> None:
    data = ROOT / "ragsvc" / "inference" / "data"
    calibration = (data / "calibration.txt").read_text("utf-8")
    assert not [
        text for text in json.loads((data / "probe.json").read_text("utf-8")) if len(text) > 20 and text in calibration
    ]
