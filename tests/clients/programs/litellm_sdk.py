"""The LiteLLM SDK."""

from pathlib import Path

import litellm
from litellm import vector_store_files
from litellm.vector_stores import main as vector_stores
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

litellm.suppress_debug_info = True
SERVICE = {"api_base": BASE_URL, "api_key": API_KEY, "max_retries": 0}
STORES = {"api_base": BASE_URL, "api_key": STORE_KEY, "custom_llm_provider": "openai"}
GREETING = {"model": "openai/backend-model", "messages": [{"role": "user", "content": HELLO}], **SERVICE}
ASKED = {
    "model": "openai/local/chat-model",
    "messages": [{"role": "user", "content": QUESTION}],
    "extra_body": {"use_rag": True},
    **SERVICE,
}
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def source_of(annotation) -> dict:
    cited = dict(annotation)["url_citation"]
    return {
        "type": dict(annotation)["type"],
        "url": cited["url"],
        "title": cited["title"],
        "quote": cited["content"],
        "marker": [cited["start_index"], cited["end_index"]],
    }


def chat() -> dict:
    return {"text": litellm.completion(**GREETING).choices[0].message.content}


def stream() -> dict:
    chunks = litellm.completion(**GREETING, stream=True)
    return {"pieces": [chunk.choices[0].delta.content for chunk in chunks if chunk.choices[0].delta.content]}


def citations() -> dict:
    message = litellm.completion(**ASKED).choices[0].message
    return {"text": message.content, "sources": [source_of(annotation) for annotation in message.annotations]}


def streamed_citations() -> dict:
    text, annotations = "", []
    for chunk in litellm.completion(**ASKED, stream=True):
        delta = chunk.choices[0].delta
        text += delta.content or ""
        annotations += getattr(delta, "annotations", None) or []
    return {"text": text, "sources": [source_of(annotation) for annotation in annotations]}


def embeddings() -> dict:
    data = litellm.embedding("openai/local/embedding-model", input=TEXTS, **SERVICE).data
    return {"vectors": [item["embedding"] for item in data]}


def tools() -> dict:
    messages = [{"role": "user", "content": "What is the weather in Paris?"}]
    first = litellm.completion("openai/tools", messages=messages, tools=[TOOL], **SERVICE).choices[0].message
    (call,) = first.tool_calls
    messages += [first, {"role": "tool", "tool_call_id": call.id, "content": WEATHER}]
    answer = litellm.completion("openai/tools", messages=messages, tools=[TOOL], **SERVICE)
    return {
        "calls": [{"name": call.function.name, "arguments": call.function.arguments}],
        "text": answer.choices[0].message.content,
    }


SEARCHED = {
    "model": "openai/local/chat-model",
    "input": QUESTION,
    "tools": [{"type": "file_search", "vector_store_ids": [VECTOR_STORE_ID]}],
    "include": ["file_search_call.results"],
    "api_base": BASE_URL,
    "api_key": STORE_KEY,
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


def responses() -> dict:
    return result_of(litellm.responses(**SEARCHED))


def streamed_responses() -> dict:
    events = list(litellm.responses(**SEARCHED, stream=True))
    pieces = [event.delta for event in events if event.type == "response.output_text.delta"]
    return {**result_of(events[-1].response), "pieces": pieces}


def stores() -> dict:
    file = litellm.create_file(file=(Path(UPLOAD).name, Path(UPLOAD).read_bytes()), purpose="assistants", **STORES)
    store = vector_stores.create(name="cranes", metadata={"place": "harbour"}, **STORES)
    added = {"vector_store_id": store["id"], "file_id": file.id, **STORES}
    attached = vector_store_files.create(attributes={"kind": "crane"}, **added)
    while attached["status"] == "in_progress":
        attached = vector_store_files.retrieve(**added)
    counts = vector_stores.retrieve(vector_store_id=store["id"], **STORES)["file_counts"]
    kind = {"type": "eq", "key": "kind", "value": "crane"}
    page = vector_stores.search(vector_store_id=store["id"], query=CRANE_QUESTION, filters=kind, **STORES)
    return {
        "status": attached["status"],
        "counts": dict(counts),
        "found": [
            {"file_id": hit["file_id"], "filename": hit["filename"], "text": hit["content"][0]["text"]}
            for hit in page["data"]
        ],
        "file_id": file.id,
        "content": litellm.file_content(file.id, **STORES).content.decode(),
        "deleted": [
            vector_store_files.delete(**added)["deleted"],
            vector_stores.delete(vector_store_id=store["id"], **STORES)["deleted"],
            litellm.file_delete(file.id, **STORES).deleted,
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
        "vector stores": stores,
    },
)
