"""The samples of our five specifications run as they stand there; only host and key are exchanged.

``fixtures/samples`` holds them by document and name. Python's indentation was restored where the document had lost it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ragsvc.testing.sample_pdfs import text_pdf
from tests.conftest import FIXTURES
from tests.support.recording_provider import SPEECH

pytestmark = pytest.mark.model

SAMPLES = FIXTURES / "samples"
NEEDS_BEFORE = {
    "oryxen/tokens.py": "import requests\n",
    "oryxen/upload.py": "import requests\n",
    "operayde/stream.ts": "const base = process.env.OPERAYDE_BASE!;\nconst key = process.env.OPERAYDE_KEY!;\n",
}
"""What a sample takes from the one before it in its document."""
REPORT = text_pdf([["Quarterly report.", "The Q3 revenue was 81.8 billion dollars."]])


def completion(output: str) -> None:
    body = (
        json.loads(output.replace("'", '"').replace("None", "null")) if output.startswith("{'") else json.loads(output)
    )
    assert body["object"] == "chat.completion"
    assert body["choices"][0]["finish_reason"] in ("stop", "tool_calls")
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] + body["usage"]["completion_tokens"]


def events(output: str) -> None:
    lines = [line.removeprefix("data: ") for line in output.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    chunks = [json.loads(line) for line in lines[:-1]]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert any(chunk["choices"][0]["delta"].get("content") for chunk in chunks)


def says(*words: str) -> Callable[[str], None]:
    def check(output: str) -> None:
        for word in words:
            assert word in output, output

    return check


SPEAKS = says("extractive model")
HELLO = says("Hello")
CHECKS: dict[str, Callable[[str], None]] = {
    "oryxen/models.sh": says('"local/chat-model"', '"pricing"'),
    "oryxen/models.py": says("local/chat-model"),
    "oryxen/models.mjs": says("local/chat-model"),
    "oryxen/chat.sh": completion,
    "oryxen/chat.py": SPEAKS,
    "oryxen/chat.mjs": SPEAKS,
    "oryxen/stream.sh": events,
    "oryxen/stream.py": events,
    "oryxen/stream.mjs": events,
    "oryxen/tokens.sh": says('{"tokens_remaining":999999999}'),
    "oryxen/tokens.py": says("999999999"),
    "oryxen/upload.sh": says('"status":"ready"'),
    "oryxen/upload.py": says("'status': 'ready'"),
    "oryxen/openai.py": SPEAKS,
    "oryxen/openai.mjs": SPEAKS,
    "oryxen/no_library.sh": completion,
    "operayde/chat.sh": completion,
    "operayde/chat.py": HELLO,
    "operayde/chat.ts": HELLO,
    "operayde/stream.sh": events,
    "operayde/stream.py": says("Hello world\n"),
    "operayde/stream.ts": says("Hello world"),
    "operayde/embeddings.sh": lambda output: json.loads(output) == [1.0, 2.0, 3.0] or pytest.fail(output),
    "operayde/openai.py": HELLO,
    "operayde/openai.ts": HELLO,
    "prem/local_server.sh": completion,
    "prem/openai.mjs": says("Hello world"),
    "orqen/embeddings.sh": says('"embedding"'),
    "orqen/images.sh": says('"b64_json"'),
    "orqen/speech.sh": says(""),
    "oxen/quick.sh": completion,
    "oxen/stream.sh": events,
    "oxen/vision.sh": completion,
    "oxen/tools.sh": says("tool_calls", "get_weather"),
    "oxen/tool_results.sh": completion,
}


def test_every_sample_is_here() -> None:
    found = {path.relative_to(SAMPLES).as_posix().removesuffix(".txt") for path in SAMPLES.rglob("*.txt")}
    assert found - {"oryxen/rag.json"} == set(CHECKS)


@pytest.mark.parametrize("name", CHECKS)
def test_a_sample_runs(gateway, node_modules: Callable[[], Path], tmp_path: Path, name: str) -> None:
    text = adapted(NEEDS_BEFORE.get(name, "") + (SAMPLES / f"{name}.txt").read_text(), gateway)
    (tmp_path / "report.pdf").write_bytes(REPORT)
    done = subprocess.run(
        command(name, text, tmp_path, node_modules),
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        timeout=60,
        env=environment(gateway),
    )
    assert done.returncode == 0, done.stderr
    CHECKS[name](done.stdout)
    if name == "orqen/speech.sh":
        assert (tmp_path / "speech.mp3").read_bytes() == SPEECH


def test_the_documents_rag_request_answers_from_the_uploaded_report(gateway) -> None:
    with gateway.service.client(gateway.new_key(tenant="rag-sample")) as client:
        pdf = {"content-type": "application/pdf"}
        assert client.post("/v1/rag/documents", content=REPORT, headers=pdf).status_code == 201
        answer = client.post("/v1/chat/completions", json=json.loads((SAMPLES / "oryxen/rag.json.txt").read_text()))
    message = answer.json()["choices"][0]["message"]
    assert "81.8 billion" in message["content"]
    assert message["annotations"][0]["page"] == 1


def adapted(text: str, gateway) -> str:
    """Only host and key are others."""
    for host in ("https://api.oryxen.ai", "https://api.orqen.app", "http://localhost:3000", "https://hub.oxen.ai"):
        text = text.replace(host, gateway.url)
    for key in ("oryxen_your_key", "sk-orq-YOUR_KEY", "your-api-key"):
        text = text.replace(key, gateway.key)
    return text


def environment(gateway) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    return kept | {
        "OPERAYDE_KEY": gateway.key,
        "OPERAYDE_BASE": f"{gateway.url}/v1",
        "OXEN_API_KEY": gateway.key,
        "NODE_NO_WARNINGS": "1",
    }


def command(name: str, text: str, folder: Path, node_modules: Callable[[], Path]) -> list[str]:
    kind = name.rsplit(".", maxsplit=1)[-1]
    if kind == "py":
        return [sys.executable, "-c", text]
    if kind == "sh":
        for tool in ("bash", "curl", *(["jq"] if "jq" in text else [])):
            if shutil.which(tool) is None:
                pytest.skip(f"{tool} is not installed")
        return ["bash", "-o", "pipefail", "-c", text]
    (folder / "node_modules").symlink_to(node_modules())
    file = folder / f"sample.{kind}"
    file.write_text(text)
    if kind == "ts":
        (folder / "strip.mjs").write_text(
            'import { transformSync } from "amaro";\nimport { readFileSync, writeFileSync } from "node:fs";\n'
            'const { code } = transformSync(readFileSync("sample.ts", "utf8"), { mode: "strip-only" });\n'
            'writeFileSync("sample.mjs", code);\n'
        )
        return ["bash", "-c", "node strip.mjs && node sample.mjs"]
    return ["node", file.name]
