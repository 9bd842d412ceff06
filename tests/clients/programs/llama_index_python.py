"""LlamaIndex: chat, embeddings and an agent over an OpenAI-like service."""

import json

from llama_index.core.agent.workflow import FunctionAgent, ToolCallResult
from llama_index.core.llms import ChatMessage
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike, OpenAILikeResponses
from reporting import API_KEY, BASE_URL, HELLO, QUESTION, STORE_KEY, TEXTS, VECTOR_STORE_ID, WEATHER, report

SERVICE = {"api_base": BASE_URL, "api_key": API_KEY, "max_retries": 0}


def model_of(name: str) -> OpenAILike:
    return OpenAILike(model=name, is_chat_model=True, is_function_calling_model=True, **SERVICE)


def chat() -> dict:
    return {"text": model_of("backend-model").chat([ChatMessage(HELLO)]).message.content}


def stream() -> dict:
    chunks = model_of("backend-model").stream_chat([ChatMessage(HELLO)])
    return {"pieces": [chunk.delta for chunk in chunks if chunk.delta]}


def embeddings() -> dict:
    return {"vectors": OpenAILikeEmbedding("local/embedding-model", **SERVICE).get_text_embedding_batch(TEXTS)}


async def tools() -> dict:
    def get_weather(city: str) -> str:
        """Tells the weather of a city."""
        assert city == "Paris"
        return WEATHER

    running = FunctionAgent(tools=[get_weather], llm=model_of("tools")).run("What is the weather in Paris?")
    results = [event async for event in running.stream_events() if isinstance(event, ToolCallResult)]
    calls = [{"name": result.tool_name, "arguments": json.dumps(result.tool_kwargs)} for result in results]
    return {"calls": calls, "text": str(await running)}


def searching_model() -> OpenAILikeResponses:
    tool = {"type": "file_search", "vector_store_ids": [VECTOR_STORE_ID]}
    options = {"include": ["file_search_call.results"], "built_in_tools": [tool]}
    return OpenAILikeResponses(model="local/chat-model", **{**SERVICE, "api_key": STORE_KEY}, **options)


def result_of(response) -> dict:
    annotations = response.additional_kwargs["annotations"]
    annotations = [item if isinstance(item, dict) else item.model_dump() for item in annotations]
    return {
        "text": response.message.content,
        "sources": [
            {key: annotation.get(key) for key in ("type", "file_id", "filename", "page")} for annotation in annotations
        ],
    }


def responses() -> dict:
    response = searching_model().chat([ChatMessage(QUESTION)])
    (search,) = response.additional_kwargs["built_in_tool_calls"]
    found = [{"file_id": hit.file_id, "filename": hit.filename, "text": hit.text} for hit in search.results]
    return {**result_of(response), "found": found}


def streamed_responses() -> dict:
    chunks = list(searching_model().stream_chat([ChatMessage(QUESTION)]))
    return {**result_of(chunks[-1]), "pieces": [chunk.delta for chunk in chunks if chunk.delta]}


report(
    "llama-index-llms-openai-like",
    {
        "chat": chat,
        "stream": stream,
        "embeddings": embeddings,
        "tools": tools,
        "responses": responses,
        "streamed responses": streamed_responses,
    },
)
