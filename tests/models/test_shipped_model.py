"""What the built-in model's ready-made export saves: comparisons that are remembered, tokenizers that are shared."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from ragsvc.inference import agreement_record
from ragsvc.inference.agreement_record import AgreementRecord
from ragsvc.inference.export import Precision, ensure_export, export_sha256, probe_texts
from ragsvc.inference.factory import open_embedder
from ragsvc.inference.mapped_files import release_pages
from ragsvc.inference.model_files import BUILT_IN, read_model
from ragsvc.inference.shipped_model import FOLDER, WORDS_FILE
from ragsvc.inference.tokens import load_tokenizer, shared_tokenizer, truncated_ids


@pytest.mark.parametrize("tokens", [3, 7, 8, 9, 256])
@pytest.mark.parametrize(
    "text", ["", "word", "one two three four five six", "unbelievable antidisestablishmentarianism " * 90]
)
def test_ids_are_shortened_as_the_tokenizer_shortens_them(text: str, tokens: int) -> None:
    file = FOLDER / "tokenizer.json"
    truncating = load_tokenizer(file, max_tokens=tokens)
    assert truncated_ids(shared_tokenizer(file).encode(text), tokens) == truncating.encode(text).ids


def test_a_tokenizer_is_held_once(tmp_path: Path) -> None:
    files = read_model(BUILT_IN, data_dir=tmp_path)
    shared = shared_tokenizer(files.tokenizer_file)
    assert isinstance(shared, Tokenizer)
    assert shared_tokenizer(files.tokenizer_file) is shared
    assert (shared.truncation, shared.padding) == (None, None)


def test_a_comparison_counts_for_one_export_runtime_and_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = AgreementRecord(tmp_path, export_sha256="a", runtime="onnxruntime-1")
    assert record.mean() is None
    record.remember(0.998)
    assert AgreementRecord(tmp_path, export_sha256="a", runtime="onnxruntime-1").mean() == 0.998
    assert AgreementRecord(tmp_path, export_sha256="b", runtime="onnxruntime-1").mean() is None
    assert AgreementRecord(tmp_path, export_sha256="a", runtime="onnxruntime-2").mean() is None
    monkeypatch.setattr(agreement_record, "processor_identity", lambda: "another processor")
    assert AgreementRecord(tmp_path, export_sha256="a", runtime="onnxruntime-1").mean() is None


@pytest.mark.model
def test_a_remembered_comparison_is_not_repeated_and_a_damaged_record_is(tmp_path: Path) -> None:
    files = read_model(BUILT_IN, data_dir=tmp_path)
    open_embedder(data_dir=tmp_path, runtime="onnx-int8", int8_saturates=False).close()
    file = tmp_path / "models" / "agreements.json"
    ((key, mean),) = json.loads(file.read_text()).items()
    assert mean > 0.99
    assert key.startswith(f"{export_sha256(ensure_export(files, Precision.INT8, data_dir=tmp_path))} onnxruntime-")
    file.write_text(json.dumps({key: 0.5}))
    open_embedder(data_dir=tmp_path, runtime="onnx-int8", int8_saturates=False).close()
    assert json.loads(file.read_text()) == {key: 0.5}
    file.write_text("{")
    open_embedder(data_dir=tmp_path, runtime="onnx-int8", int8_saturates=False).close()
    assert json.loads(file.read_text()) == {key: mean}


@pytest.mark.model
def test_vectors_are_equal_after_the_pages_of_the_word_table_were_released(tmp_path: Path) -> None:
    embedder = open_embedder(data_dir=tmp_path, runtime="onnx-int8", int8_saturates=False)
    before = embedder.embed_queries(probe_texts())
    release_pages(WORDS_FILE)
    np.testing.assert_array_equal(embedder.embed_queries(probe_texts()), before)
    embedder.close()
