"""The client of OGX, formerly Llama Stack."""

import time
from pathlib import Path

from ogx_client import OgxClient
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

client = OgxClient(base_url=BASE_URL.removesuffix("/v1"), api_key=API_KEY, max_retries=0)
store_client = OgxClient(base_url=BASE_URL.removesuffix("/v1"), api_key=STORE_KEY, max_retries=0)
SEARCHED = {
    "model": "local/chat-model",
    "input": QUESTION,
    "tools": [{"type": "file_search", "vector_store_ids": [VECTOR_STORE_ID]}],
    "include": ["file_search_call.results"],
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


def models() -> dict:
    return {"ids": [model.id for model in client.models.list().data]}


def result_of(response) -> dict:
    search, message = response.output
    (content,) = message.content
    return {
        "text": content.text,
        "sources": [
            {
                "type": type(annotation).__name__,
                "file_id": annotation.file_id,
                "filename": annotation.filename,
                "page": annotation.page,
            }
            for annotation in content.annotations
        ],
        "found": [{"file_id": hit.file_id, "filename": hit.filename, "text": hit.text} for hit in search.results],
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
    while attached.status == "in_progress":
        time.sleep(0.1)
        attached = stores.files.retrieve(file.id, vector_store_id=store.id)
    counts = stores.retrieve(store.id).file_counts.to_dict()
    kind = {"type": "eq", "key": "kind", "value": "crane"}
    page = stores.search(store.id, query=CRANE_QUESTION, filters=kind)
    content = store_client.files.content(file.id)
    return {
        "status": attached.status,
        "counts": counts,
        "found": [{"file_id": hit.file_id, "filename": hit.filename, "text": hit.content[0].text} for hit in page.data],
        "file_id": file.id,
        "content": content if isinstance(content, str) else content.text(),
        "deleted": [
            stores.files.delete(file.id, vector_store_id=store.id).deleted,
            stores.delete(store.id).deleted,
            store_client.files.delete(file.id).deleted,
        ],
    }


report(
    "ogx-client",
    {
        "chat": chat,
        "stream": stream,
        "citations": citations,
        "embeddings": embeddings,
        "models": models,
        "responses": responses,
        "streamed responses": streamed_responses,
        "vector stores": vector_stores,
    },
)
