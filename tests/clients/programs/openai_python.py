"""The official Python client."""

from openai import OpenAI
from reporting import API_KEY, BASE_URL, HELLO, QUESTION, TEXTS, WEATHER, report

client = OpenAI(base_url=BASE_URL, api_key=API_KEY, max_retries=0)
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


report(
    "openai",
    {
        "chat": chat,
        "stream": stream,
        "citations": citations,
        "streamed citations": streamed_citations,
        "embeddings": embeddings,
        "tools": tools,
    },
)
