"""The official Python client."""

from pathlib import Path

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

client = OpenAI(base_url=BASE_URL, api_key=API_KEY, max_retries=0)
store_client = OpenAI(base_url=BASE_URL, api_key=STORE_KEY, max_retries=0)
GREETING = [{"role": "user", "content": HELLO}]
ASKED = {
    "model": "local/chat-model",
    "messages": [{"role": "user", "content": QUESTION}],
    "extra_body": {"use_rag": True},
}
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
SEARCHED = {
    "model": "local/chat-model",
    "input": QUESTION,
    "tools": [{"type": "file_search", "vector_store_ids": [VECTOR_STORE_ID]}],
    "include": ["file_search_call.results"],
}


def source_of(annotation) -> dict:
    cited = annotation.url_citation
    return {
        "type": type(annotation).__name__,
        "url": cited.url,
        "title": cited.title,
        "quote": cited.content,
        "marker": [cited.start_index, cited.end_index],
    }


def chat() -> dict:
    return {"text": client.chat.completions.create(model="backend-model", messages=GREETING).choices[0].message.content}


def stream() -> dict:
    chunks = client.chat.completions.create(model="backend-model", messages=GREETING, stream=True)
    return {"pieces": [chunk.choices[0].delta.content for chunk in chunks if chunk.choices[0].delta.content]}


def citations() -> dict:
    message = client.chat.completions.create(**ASKED).choices[0].message
    return {"text": message.content, "sources": [source_of(annotation) for annotation in message.annotations]}


def streamed_citations() -> dict:
    with client.chat.completions.stream(**ASKED) as events:
        message = events.get_final_completion().choices[0].message
    return {"text": message.content, "sources": [source_of(annotation) for annotation in message.annotations]}


def embeddings() -> dict:
    data = client.embeddings.create(model="local/embedding-model", input=TEXTS).data
    return {"vectors": [item.embedding for item in data]}


def tools() -> dict:
    asked = [{"role": "user", "content": "What is the weather in Paris?"}]
    with client.chat.completions.stream(model="tools", messages=asked, tools=[TOOL]) as events:
        message = events.get_final_completion().choices[0].message
    (call,) = message.tool_calls
    result = {"role": "tool", "tool_call_id": call.id, "content": WEATHER}
    messages = [*asked, message.model_dump(exclude_none=True), result]
    answer = client.chat.completions.create(model="tools", messages=messages, tools=[TOOL])
    return {
        "calls": [{"name": call.function.name, "arguments": call.function.arguments}],
        "text": answer.choices[0].message.content,
    }


def result_of(response) -> dict:
    """The text of a response, its annotations, and what the search found."""
    search, message = response.output
    (content,) = message.content
    return {
        "text": response.output_text,
        "sources": [
            {
                "type": type(annotation).__name__,
                "file_id": annotation.file_id,
                "filename": annotation.filename,
                "page": annotation.page,
            }
            for annotation in content.annotations
        ],
        "found": [
            {"file_id": result.file_id, "filename": result.filename, "text": result.text} for result in search.results
        ],
    }


def responses() -> dict:
    return result_of(store_client.responses.create(**SEARCHED))


def streamed_responses() -> dict:
    with store_client.responses.stream(**SEARCHED) as events:
        pieces = [event.delta for event in events if event.type == "response.output_text.delta"]
        return {**result_of(events.get_final_response()), "pieces": pieces}


def vector_stores() -> dict:
    stores = store_client.vector_stores
    store = stores.create(name="cranes", metadata={"place": "harbour"})
    file = stores.files.upload_and_poll(vector_store_id=store.id, file=Path(UPLOAD), attributes={"kind": "crane"})
    counts = stores.retrieve(store.id).file_counts.to_dict()
    kind = {"type": "eq", "key": "kind", "value": "crane"}
    page = stores.search(store.id, query=CRANE_QUESTION, filters=kind)
    return {
        "status": file.status,
        "counts": counts,
        "found": [{"file_id": hit.file_id, "filename": hit.filename, "text": hit.content[0].text} for hit in page.data],
        "file_id": file.id,
        "content": store_client.files.content(file.id).text,
        "deleted": [
            stores.files.delete(file.id, vector_store_id=store.id).deleted,
            stores.delete(store.id).deleted,
            store_client.files.delete(file.id).deleted,
        ],
    }


report(
    "openai",
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
