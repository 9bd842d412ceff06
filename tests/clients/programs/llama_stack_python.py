"""The last client of Llama Stack that sends its requests to ``/v1/openai/v1``."""

import time
from pathlib import Path

from llama_stack_client import LlamaStackClient
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
    report,
)

client = LlamaStackClient(base_url=BASE_URL.removesuffix("/v1"), api_key=API_KEY, max_retries=0)
store_client = LlamaStackClient(base_url=BASE_URL.removesuffix("/v1"), api_key=STORE_KEY, max_retries=0)
SEARCHED = {
    "model": "local/chat-model",
    "input": QUESTION,
    "tools": [{"type": "file_search", "vector_store_ids": [VECTOR_STORE_ID]}],
    "extra_body": {"include": ["file_search_call.results"]},
}
GREETING = [{"role": "user", "content": HELLO}]


def chat() -> dict:
    answer = client.chat.completions.create(model="backend-model", messages=GREETING)
    return {"text": answer.choices[0].message.content}


def stream() -> dict:
    chunks = client.chat.completions.create(model="backend-model", messages=GREETING, stream=True)
    return {"pieces": [chunk.choices[0].delta.content for chunk in chunks if chunk.choices[0].delta.content]}


def citations() -> dict:
    answer = client.chat.completions.create(
        model="local/chat-model", messages=[{"role": "user", "content": QUESTION}], extra_body={"use_rag": True}
    )
    message = answer.choices[0].message
    cited = [annotation["url_citation"] for annotation in message.annotations]
    sources = [{"type": "url_citation", "url": one["url"], "title": one["title"]} for one in cited]
    return {"text": message.content, "sources": sources}


def embeddings() -> dict:
    data = client.embeddings.create(model="local/embedding-model", input=TEXTS).data
    return {"vectors": [item.embedding for item in data]}


def result_of(response) -> dict:
    """The client's types have neither results nor annotations; it keeps both as they were sent."""
    search, message = response.to_dict()["output"]
    (content,) = message["content"]
    fields = ("type", "file_id", "filename", "page")
    return {
        "text": content["text"],
        "sources": [{name: annotation[name] for name in fields} for annotation in content["annotations"]],
        "found": [{name: hit[name] for name in ("file_id", "filename", "text")} for hit in search["results"]],
    }


def responses() -> dict:
    return result_of(store_client.responses.create(**SEARCHED))


def streamed_responses() -> dict:
    events = list(store_client.responses.create(**SEARCHED, stream=True))
    pieces = [event.delta for event in events if event.type == "response.output_text.delta"]
    return {**result_of(events[-1].response), "pieces": pieces}


def vector_stores() -> dict:
    stores = store_client.vector_stores
    file = store_client.files.create(file=Path(UPLOAD), purpose="assistants")
    store = stores.create(name="cranes", metadata={"place": "harbour"})
    attached = stores.files.create(store.id, file_id=file.id, attributes={"kind": "crane"})
    while (shown := stores.retrieve(store.id)).file_counts.in_progress:
        time.sleep(0.1)
    counts = shown.file_counts.to_dict()
    kind = {"type": "eq", "key": "kind", "value": "crane"}
    page = stores.search(store.id, query=CRANE_QUESTION, filters=kind)
    content = store_client.files.content(file.id)
    attached_path = f"/v1/openai/v1/vector_stores/{store.id}/files/{file.id}"  # this client has no method for it
    removed = store_client.delete(attached_path, cast_to=object)
    return {
        "status": attached.status if shown.status == "in_progress" else shown.status,
        "counts": counts,
        "found": [{"file_id": hit.file_id, "filename": hit.filename, "text": hit.content[0].text} for hit in page.data],
        "file_id": file.id,
        "content": content if isinstance(content, str) else content.text(),
        "deleted": [
            removed["deleted"],
            stores.delete(store.id).deleted,
            store_client.files.delete(file.id).deleted,
        ],
    }


report(
    "llama-stack-client",
    {
        "chat": chat,
        "stream": stream,
        "citations": citations,
        "embeddings": embeddings,
        "responses": responses,
        "streamed responses": streamed_responses,
        "vector stores": vector_stores,
    },
)
