"""The client of OGX, formerly Llama Stack."""

from ogx_client import OgxClient
from reporting import API_KEY, BASE_URL, HELLO, QUESTION, TEXTS, report

client = OgxClient(base_url=BASE_URL.removesuffix("/v1"), api_key=API_KEY, max_retries=0)
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


report(
    "ogx-client",
    {"chat": chat, "stream": stream, "citations": citations, "embeddings": embeddings, "models": models},
)
