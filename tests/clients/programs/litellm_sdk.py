"""The LiteLLM SDK."""

import litellm
from reporting import API_KEY, BASE_URL, HELLO, QUESTION, TEXTS, WEATHER, report

litellm.suppress_debug_info = True
SERVICE = {"api_base": BASE_URL, "api_key": API_KEY, "max_retries": 0}
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
