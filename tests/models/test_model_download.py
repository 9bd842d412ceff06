"""Models from a hub: downloaded once, pinned, checked, with their own ONNX graph where there is none of ours."""

from __future__ import annotations

import json
import logging
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ragsvc.core.errors import ConfigurationError, EmbeddingFailed
from ragsvc.inference.factory import open_embedder
from ragsvc.inference.model_download import HubFile, choose_files, parse_hub_name
from ragsvc.inference.model_files import BUILT_IN, read_model, resolve_folder
from ragsvc.testing.service_runner import RunningService, create_key
from tests.models.test_inference_runtimes import make_tiny_model, make_tiny_transformer
from tests.models.test_model_files import write_model
from tests.support.model_hub import ModelHub, model_hub

TEXTS = ["A dog runs.", "", "Net revenue rose 5 % in 2022. " * 20]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelHub]:
    with model_hub() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        (tmp_path / "data").mkdir()
        yield running


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def add_graph(folder: Path, *, quantised: bool = False, wrong: bool = False, extra_input: bool = False) -> None:
    """Export the model as Optimum does: token vectors from ids and a mask."""
    import torch  # noqa: PLC0415 - seconds
    import transformers  # noqa: PLC0415 - same

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = transformers.AutoModel.from_pretrained(str(folder)).eval()

        def forward(self, input_ids, attention_mask, temperature=None):
            hidden = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            if temperature is not None:
                hidden = hidden * temperature
            return hidden + torch.arange(hidden.shape[-1]) if wrong else hidden

    ids = torch.tensor([[101, 2003, 102], [101, 2004, 102]])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if extra_input:
        inputs["temperature"] = torch.ones(1)
    target = folder / "onnx" / "model.onnx"
    target.parent.mkdir(exist_ok=True)
    axes = {name: {0: "batch", 1: "tokens"} for name in ("input_ids", "attention_mask", "last_hidden_state")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Encoder(),
            tuple(inputs.values()),
            str(target),
            input_names=list(inputs),
            output_names=["last_hidden_state"],
            dynamic_axes=axes,
            dynamo=False,
            opset_version=17,
        )
    if quantised:
        from onnxruntime.quantization import quantize_dynamic  # noqa: PLC0415 - same

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            quantize_dynamic(target, target.with_name("model_quantized.onnx"))


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("intfloat/e5-small", (("intfloat/e5-small",), None)),
        ("all-MiniLM-L12-v2", (("sentence-transformers/all-MiniLM-L12-v2", "all-MiniLM-L12-v2"), None)),
        ("a/b@refs/pr/1", (("a/b",), "refs/pr/1")),
        ("./models/e5", None),
        ("/models/e5", None),
        ("~/models", None),
        ("a/b/c", None),
        ("a/../b", None),
        ("a/b@", None),
        ("", None),
    ],
)
def test_a_hub_name_is_told_from_a_path(setting: str, expected: tuple | None) -> None:
    name = parse_hub_name(setting)
    assert (None if name is None else (name.repositories, name.revision)) == expected


def test_one_format_of_the_weights_is_chosen() -> None:
    names = [
        "config.json",
        "modules.json",
        "tokenizer.json",
        "README.md",
        "model.safetensors",
        "pytorch_model.bin",
        "tf_model.h5",
        "openvino/openvino_model.xml",
        "openvino/config.json",
        "onnx/config.json",
        "onnx/model.onnx",
        "onnx/model.onnx_data",
        "onnx/model_O4.onnx",
        "onnx/model_qint8_arm64.onnx",
        "onnx/model_quantized.onnx",
        "1_Pooling/config.json",
        "2_Dense/config.json",
        "2_Dense/pytorch_model.bin",
    ]
    plain = [file.name for file in choose_files(map(HubFile, names), graphs=False)]
    assert plain == [
        "1_Pooling/config.json",
        "2_Dense/config.json",
        "2_Dense/pytorch_model.bin",
        "config.json",
        "model.safetensors",
        "modules.json",
        "tokenizer.json",
    ]
    graphs = {file.name for file in choose_files(map(HubFile, names), graphs=True)} - set(plain)
    assert graphs == {"onnx/model.onnx", "onnx/model.onnx_data", "onnx/model_quantized.onnx"}


def test_a_model_is_downloaded_once_and_its_commit_is_used_again(
    hub: ModelHub, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = hub.publish("acme/tiny", write_model(tmp_path / "one", **{"model.safetensors": "weights" * 5000}))
    with caplog.at_level(logging.INFO):
        files = read_model("acme/tiny", data_dir=data, offline=False)
    assert (files.root.name, files.model.name, files.pooling) == (first, "acme/tiny", "cls")
    assert "downloading embedding model acme/tiny" in caplog.text
    assert "downloaded and checked embedding model acme/tiny" in caplog.text
    record = json.loads((data / "hub_models.json").read_text())["acme/tiny"]
    assert (record["repository"], record["revision"]) == ("acme/tiny", first)
    assert record["files"]["model.safetensors"]["size"] == 35_000

    second = hub.publish("acme/tiny", write_model(tmp_path / "two", **{"model.safetensors": "newer"}))
    asked = len(hub.requests)
    for offline in (False, True):
        again = read_model("acme/tiny", data_dir=data, offline=offline)
        assert (again.root.name, again.model.fingerprint) == (first, files.model.fingerprint)
    assert len(hub.requests) == asked

    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(EmbeddingFailed, match=r"missing from .*RAGSVC_OFFLINE"):
        read_model("acme/tiny", data_dir=data, offline=True)
    assert read_model("acme/tiny", data_dir=data, offline=False).root.name == first  # not the newer commit
    named = read_model(f"acme/tiny@{second}", data_dir=data, offline=False)
    assert (named.root.name, named.model.name) == (second, f"acme/tiny@{second}")


def test_a_branch_and_a_short_name_are_resolved(hub: ModelHub, data: Path, tmp_path: Path) -> None:
    hub.publish("acme/tiny", write_model(tmp_path / "main"))
    branch = hub.publish("acme/tiny", write_model(tmp_path / "branch", **{"model.safetensors": "b"}), branch="v2")
    assert resolve_folder("acme/tiny@v2", data_dir=data, offline=False).name == branch
    short = hub.publish("sentence-transformers/short", tmp_path / "main")
    assert resolve_folder("short", data_dir=data, offline=False).name == short
    bare = hub.publish("bare", tmp_path / "branch")
    assert resolve_folder("bare", data_dir=data, offline=False).name == bare


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("acme/unknown", "has no model acme/unknown"),
        ("acme/gated", "HF_TOKEN"),
        ("acme/tiny@nowhere", "no revision 'nowhere'"),
        ("acme/empty", "no transformers model"),
    ],
)
def test_what_the_hub_does_not_give_is_explained(
    hub: ModelHub, data: Path, tmp_path: Path, setting: str, message: str
) -> None:
    for name in ("tiny", "gated"):
        hub.publish(f"acme/{name}", write_model(tmp_path / name))
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "README.md").write_text("nothing")
    hub.publish("acme/empty", tmp_path / "empty")
    hub.gated.add("acme/gated")
    with pytest.raises(ConfigurationError, match=message) as refused:
        resolve_folder(setting, data_dir=data, offline=False)
    assert refused.value.problems[0].startswith(f"embedding model '{setting}'")
    assert not (data / "hub_models.json").exists()


def test_offline_forbids_and_says_so(hub: ModelHub, data: Path, tmp_path: Path, monkeypatch) -> None:
    hub.publish("acme/tiny", write_model(tmp_path / "model"))
    with pytest.raises(ConfigurationError, match="RAGSVC_OFFLINE"):
        read_model("acme/tiny", data_dir=data, offline=True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ConfigurationError, match="cache"):
        read_model("acme/tiny", data_dir=data, offline=False)
    assert hub.requests == []


def test_an_unreachable_hub_is_named(data_free: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_CACHE", str(data_free / "cache"))
    with pytest.raises(EmbeddingFailed, match=r"cannot be downloaded from http://127\.0\.0\.1:9"):
        resolve_folder("acme/tiny", data_dir=data_free, offline=False)


@pytest.fixture
def data_free(tmp_path: Path) -> Path:
    return tmp_path


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_file_that_differs_from_the_hubs_hash_is_not_used(
    hub: ModelHub, data: Path, tmp_path: Path, name: str
) -> None:
    hub.publish("acme/tiny", write_model(tmp_path / "model", **{"model.safetensors": "weights" * 5000}))
    hub.damaged.add(name)
    with pytest.raises(EmbeddingFailed, match=f"{name} differs from"):
        resolve_folder("acme/tiny", data_dir=data, offline=False)
    assert not (data / "hub_models.json").exists()
    hub.damaged.clear()
    assert resolve_folder("acme/tiny", data_dir=data, offline=False).is_dir()


def test_a_cached_file_that_changed_is_downloaded_again(hub: ModelHub, data: Path, tmp_path: Path) -> None:
    hub.publish("acme/tiny", write_model(tmp_path / "model"))
    folder = resolve_folder("acme/tiny", data_dir=data, offline=False)
    weights = (folder / "model.safetensors").resolve()
    for content in ("wEights", "longer weights"):
        weights.write_text(content)
        with pytest.raises(EmbeddingFailed, match="damaged"):
            resolve_folder("acme/tiny", data_dir=data, offline=True)
        assert (
            resolve_folder("acme/tiny", data_dir=data, offline=False) / "model.safetensors"
        ).read_text() == "weights"


def test_a_model_in_the_hubs_cache_is_pinned_too(hub: ModelHub, data: Path, tmp_path: Path) -> None:
    cached = tmp_path / "cache" / "models--acme--tiny"
    for commit in ("aaa", "bbb"):
        write_model(cached / "snapshots" / commit, **{"model.safetensors": commit})
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("aaa")
    assert resolve_folder("acme/tiny", data_dir=data, offline=False).name == "aaa"
    (cached / "refs" / "main").write_text("bbb")
    assert resolve_folder("acme/tiny", data_dir=data, offline=False).name == "aaa"
    assert hub.requests == []


@pytest.mark.parametrize(
    ("pooling", "quantised", "runtime"),
    [
        ("mean", False, "onnxruntime-fp32 (model.onnx)"),
        ("cls", False, "onnxruntime-fp32 (model.onnx)"),
        ("lasttoken", False, "onnxruntime-fp32 (model.onnx)"),
        ("max", False, "onnxruntime-fp32 (model.onnx)"),
        ("mean", True, "onnxruntime-int8 (model_quantized.onnx)"),
    ],
)
def test_a_repositorys_own_graph_makes_the_originals_vectors(
    hub: ModelHub, data: Path, tmp_path: Path, *, pooling: str, quantised: bool, runtime: str
) -> None:
    folder = make_tiny_model(tmp_path / "tiny", pooling=pooling, model_type="distilbert", prompts=True)
    add_graph(folder, quantised=quantised)
    hub.publish("acme/tiny", folder)
    fast = open_embedder("acme/tiny", data_dir=data, offline=False)
    original = open_embedder("acme/tiny", data_dir=data, runtime="sentence-transformers")
    assert fast.runtime == runtime
    least = 0.97 if quantised else 0.9999
    for embed in ("embed_passages", "embed_queries"):
        fast_vectors, vectors = getattr(fast, embed)(TEXTS), getattr(original, embed)(TEXTS)
        assert (fast_vectors * vectors).sum(axis=1).min() > least
        np.testing.assert_allclose(np.linalg.norm(fast_vectors, axis=1), 1, atol=1e-5)
    assert not np.allclose(fast.embed_queries(TEXTS), fast.embed_passages(TEXTS))
    assert fast.model == original.model
    assert "README.md" not in hub.downloaded()


@pytest.mark.parametrize(
    ("family", "runtime"),
    [("XLMRoberta", "onnxruntime-int8"), ("MPNet", "onnxruntime-fp32 (model.onnx)")],
)
def test_positions_behind_the_padding_bound_the_tokens_of_a_model_without_a_stated_limit(
    tmp_path: Path, data_free: Path, family: str, runtime: str
) -> None:
    import torch  # noqa: PLC0415 - seconds
    import transformers  # noqa: PLC0415 - same

    torch.manual_seed(3)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = getattr(transformers, f"{family}Config")(
        vocab_size=30522, max_position_embeddings=66, pad_token_id=1, **sizes
    )
    folder = tmp_path / "tiny"
    getattr(transformers, f"{family}Model")(config).save_pretrained(str(folder))
    built_in = read_model(BUILT_IN, data_dir=tmp_path).folder
    transformers.AutoTokenizer.from_pretrained(str(built_in)).save_pretrained(str(folder))
    if family == "MPNet":
        add_graph(folder)
    fast = open_embedder(str(folder), data_dir=data_free)
    original = open_embedder(str(folder), data_dir=data_free, runtime="sentence-transformers")
    assert (fast.runtime, fast.model.max_tokens) == (runtime, 64)
    assert (fast.embed_passages(TEXTS) * original.embed_passages(TEXTS)).sum(axis=1).min() > 0.97


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"wrong": True}, "differs from the original"), ({"extra_input": True}, "needs the inputs temperature")],
)
def test_a_graph_that_does_not_fit_is_not_used(
    tmp_path: Path, data_free: Path, options: dict, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_tiny_model(tmp_path / "tiny", model_type="distilbert")
    add_graph(folder, **options)
    with caplog.at_level(logging.WARNING):
        opened = open_embedder(str(folder), data_dir=data_free)
    assert opened.runtime.startswith("sentence-transformers (fallback: ")
    assert reason in caplog.text
    assert opened.embed_passages(["text"]).shape == (1, 32)
    with pytest.raises(EmbeddingFailed, match=reason):
        open_embedder(str(folder), data_dir=data_free, runtime="onnx-fp32")


def test_a_model_with_a_dense_layer_runs_on_sentence_transformers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415 - seconds
    from sentence_transformers.sentence_transformer.modules import Dense  # noqa: PLC0415 - same

    base = make_tiny_model(tmp_path / "tiny", model_type="distilbert")
    model = SentenceTransformer(str(base), device="cpu")
    model.append(Dense(in_features=32, out_features=16))
    folder = tmp_path / "dense"
    model.save(str(folder))
    add_graph(base)
    shutil.copytree(base / "onnx", folder / "onnx")
    with caplog.at_level(logging.WARNING):
        opened = open_embedder(str(folder), data_dir=tmp_path)
    assert opened.runtime == "sentence-transformers (fallback: it has modules Dense)"
    assert opened.embed_passages(["text"]).shape == (1, 16)


def test_a_service_downloads_its_models_at_the_first_start(hub: ModelHub, tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "tiny", model_type="distilbert", prompts=True)
    add_graph(folder)
    hub.publish("acme/tiny", folder)
    make_tiny_transformer(tmp_path / "cross", model_type="bert", labels=1)
    hub.publish("acme/cross", tmp_path / "cross")
    data_dir = tmp_path / "service"
    key = create_key(data_dir, tenant="acme")
    env = {
        "RAGSVC_EMBEDDING_MODEL": "acme/tiny",
        "RAGSVC_RERANKER_MODEL": "acme/cross",
        "HF_ENDPOINT": hub.url,
        "HF_HUB_CACHE": str(tmp_path / "cache"),
    }
    running = RunningService(data_dir, env=env)
    with running.client(key) as http:
        reply = http.post(
            "/v1/rag/documents",
            params={"filename": "a.txt"},
            content=b"The crane lifts ninety tonnes.",
            headers={"content-type": "text/plain"},
        )
        assert (reply.status_code, reply.json()["embedding_model"]) == (201, "acme/tiny")
        found = http.post("/v1/rag/search", json={"query": "What does the crane lift?", "rerank": True}).json()
        assert found["data"][0]["filename"] == "a.txt"
        models = {model["id"] for model in http.get("/v1/models").json()["data"]}
        assert {"local/tiny", "local/cross"} <= models
    assert running.stop() == 0
    asked = len(hub.requests)
    again = RunningService(data_dir, env={**env, "RAGSVC_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"})
    with again.client(key) as http:
        assert http.post("/v1/rag/search", json={"query": "crane"}).json()["data"]
    assert again.stop() == 0
    assert len(hub.requests) == asked
