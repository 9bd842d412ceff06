"""The proxy server of LiteLLM in front of the service, asked by the official client."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
from openai import OpenAI
from reporting import API_KEY, BASE_URL, HELLO, QUESTION, TEXTS, WEATHER, report

PROXY_KEY = "sk-of-the-proxy"
MODELS = ["backend-model", "tools", "local/chat-model", "local/embedding-model"]
GREETING = [{"role": "user", "content": HELLO}]
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def is_ready(url: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"{url}/health/readiness").status_code == 200
    return False


@contextlib.contextmanager
def running_proxy() -> Iterator[str]:
    """A proxy on a free port; yields its URL."""
    models = [
        {"model_name": name, "litellm_params": {"model": f"openai/{name}", "api_base": BASE_URL, "api_key": API_KEY}}
        for name in MODELS
    ]
    settings = {"model_list": models, "general_settings": {"master_key": PROXY_KEY}}
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as folder:
        config, log = Path(folder, "config.yaml"), Path(folder, "log")
        config.write_text(json.dumps(settings))  # JSON is YAML
        command = [Path(sys.executable).parent / "litellm", "--config", config, "--host", "127.0.0.1"]
        environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False"}
        with log.open("wb") as output:
            process = subprocess.Popen([*command, "--port", str(port)], stdout=output, stderr=output, env=environment)
        try:
            deadline = time.monotonic() + 90
            while not is_ready(url):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.2)
            yield url
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)


def source_of(annotation: dict) -> dict:
    cited = annotation["url_citation"]
    return {
        "type": annotation["type"],
        "url": cited["url"],
        "title": cited["title"],
        "quote": cited["content"],
        "marker": [cited["start_index"], cited["end_index"]],
    }


with running_proxy() as url:
    client = OpenAI(base_url=f"{url}/v1", api_key=PROXY_KEY, max_retries=0)
    asked = {
        "model": "local/chat-model",
        "messages": [{"role": "user", "content": QUESTION}],
        "extra_body": {"use_rag": True},
    }

    def chat() -> dict:
        answer = client.chat.completions.create(model="backend-model", messages=GREETING)
        return {"text": answer.choices[0].message.content}

    def stream() -> dict:
        chunks = client.chat.completions.create(model="backend-model", messages=GREETING, stream=True)
        return {"pieces": [chunk.choices[0].delta.content for chunk in chunks if chunk.choices[0].delta.content]}

    def citations() -> dict:
        message = client.chat.completions.create(**asked).choices[0].message
        return {"text": message.content, "sources": [source_of(one.model_dump()) for one in message.annotations]}

    def streamed_citations() -> dict:
        text, annotations = "", []
        for chunk in client.chat.completions.create(**asked, stream=True):
            delta = chunk.choices[0].delta
            text += delta.content or ""
            annotations += getattr(delta, "annotations", None) or []
        return {"text": text, "sources": [source_of(annotation) for annotation in annotations]}

    def embeddings() -> dict:
        data = client.embeddings.create(model="local/embedding-model", input=TEXTS).data
        return {"vectors": [item.embedding for item in data]}

    def tools() -> dict:
        question = [{"role": "user", "content": "What is the weather in Paris?"}]
        message = client.chat.completions.create(model="tools", messages=question, tools=[TOOL]).choices[0].message
        (call,) = message.tool_calls
        result = {"role": "tool", "tool_call_id": call.id, "content": WEATHER}
        messages = [*question, message.model_dump(exclude_none=True), result]
        answer = client.chat.completions.create(model="tools", messages=messages, tools=[TOOL])
        return {
            "calls": [{"name": call.function.name, "arguments": call.function.arguments}],
            "text": answer.choices[0].message.content,
        }

    report(
        "litellm",
        {
            "chat": chat,
            "stream": stream,
            "citations": citations,
            "streamed citations": streamed_citations,
            "embeddings": embeddings,
            "tools": tools,
        },
    )
