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
from reporting import (
    API_KEY,
    BASE_URL,
    CRANE_QUESTION,
    HELLO,
    QUESTION,
    STORE_KEY,
    TEXTS,
    UPLOAD,
    VECTOR_STORE_ID,
    WEATHER,
    report,
)

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
    stores = {"api_base": BASE_URL, "api_key": STORE_KEY}
    # the proxy downloads files with the key of its first model
    models.insert(0, {"model_name": "with-stores", "litellm_params": {"model": "openai/local/chat-model", **stores}})
    settings = {
        "model_list": models,
        "files_settings": [{"custom_llm_provider": "openai", **stores}],
        "general_settings": {"master_key": PROXY_KEY},
    }
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as folder:
        config, log = Path(folder, "config.yaml"), Path(folder, "log")
        config.write_text(json.dumps(settings))  # JSON is YAML
        command = [Path(sys.executable).parent / "litellm", "--config", config, "--host", "127.0.0.1"]
        environment = {
            **os.environ,
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_TELEMETRY": "False",
            "OPENAI_API_BASE": BASE_URL,  # vector stores
            "OPENAI_API_KEY": STORE_KEY,
        }
        with log.open("wb") as output:
            process = subprocess.Popen([*command, "--port", str(port)], stdout=output, stderr=output, env=environment)
        try:
            deadline = time.monotonic() + 150
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

    def result_of(response) -> dict:
        """The text of a response, its annotations, and what the search found."""
        search, message = (item if isinstance(item, dict) else item.model_dump() for item in response.output)
        (content,) = message["content"]
        return {
            "text": content["text"],
            "sources": [
                {key: annotation.get(key) for key in ("type", "file_id", "filename", "page")}
                for annotation in content["annotations"]
            ],
            "found": [{key: result[key] for key in ("file_id", "filename", "text")} for result in search["results"]],
        }

    searched = {
        "model": "with-stores",
        "input": QUESTION,
        "tools": [{"type": "file_search", "vector_store_ids": [VECTOR_STORE_ID]}],
        "include": ["file_search_call.results"],
    }

    def responses() -> dict:
        return result_of(client.responses.create(**searched))

    def streamed_responses() -> dict:
        events = list(client.responses.create(**searched, stream=True))
        pieces = [event.delta for event in events if event.type == "response.output_text.delta"]
        return {**result_of(events[-1].response), "pieces": pieces}

    def vector_stores() -> dict:
        stores = client.vector_stores
        file = client.files.create(file=Path(UPLOAD), purpose="assistants")
        store = stores.create(name="cranes", metadata={"place": "harbour"})
        attached = stores.files.create_and_poll(file.id, vector_store_id=store.id, attributes={"kind": "crane"})
        counts = stores.retrieve(store.id).file_counts.to_dict()
        kind = {"type": "eq", "key": "kind", "value": "crane"}
        page = stores.search(store.id, query=CRANE_QUESTION, filters=kind)
        return {
            "status": attached.status,
            "counts": counts,
            "found": [
                {"file_id": hit.file_id, "filename": hit.filename, "text": hit.content[0].text} for hit in page.data
            ],
            "file_id": file.id,
            "content": client.files.content(file.id).text,
            "deleted": [
                stores.files.delete(file.id, vector_store_id=store.id).deleted,
                stores.delete(store.id).deleted,
                client.files.delete(file.id).deleted,
            ],
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
            "responses": responses,
            "streamed responses": streamed_responses,
            "vector stores": vector_stores,
        },
    )
