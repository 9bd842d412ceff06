"""Haystack's components for OpenAI's API."""

import json

from haystack.components.agents import Agent
from haystack.components.embedders import OpenAITextEmbedder
from haystack.components.generators.chat import OpenAIChatGenerator, OpenAIResponsesChatGenerator
from haystack.dataclasses import ChatMessage
from haystack.tools import create_tool_from_function
from haystack.utils import Secret
from reporting import API_KEY, BASE_URL, HELLO, QUESTION, STORE_KEY, TEXTS, VECTOR_STORE_ID, WEATHER, report

SERVICE = {"api_base_url": BASE_URL, "api_key": Secret.from_token(API_KEY), "max_retries": 0}
GREETING = [ChatMessage.from_user(HELLO)]


def chat() -> dict:
    (reply,) = OpenAIChatGenerator(model="backend-model", **SERVICE).run(GREETING)["replies"]
    return {"text": reply.text}


def stream() -> dict:
    chunks = []
    OpenAIChatGenerator(model="backend-model", streaming_callback=chunks.append, **SERVICE).run(GREETING)
    return {"pieces": [chunk.content for chunk in chunks if chunk.content]}


def embeddings() -> dict:
    embedder = OpenAITextEmbedder(model="local/embedding-model", **SERVICE)
    return {"vectors": [embedder.run(text)["embedding"] for text in TEXTS]}


def tools() -> dict:
    def get_weather(city: str) -> str:
        """Tells the weather of a city."""
        assert city == "Paris"
        return WEATHER

    model = OpenAIChatGenerator(model="tools", **SERVICE)
    agent = Agent(chat_generator=model, tools=[create_tool_from_function(get_weather)])
    messages = agent.run(messages=[ChatMessage.from_user("What is the weather in Paris?")])["messages"]
    calls = [call for message in messages for call in message.tool_calls]
    return {
        "calls": [{"name": call.tool_name, "arguments": json.dumps(call.arguments)} for call in calls],
        "text": messages[-1].text,
    }


def searching_generator(**options) -> OpenAIResponsesChatGenerator:
    tools = [{"type": "file_search", "vector_store_ids": [VECTOR_STORE_ID]}]
    service = {**SERVICE, "api_key": Secret.from_token(STORE_KEY)}
    return OpenAIResponsesChatGenerator(model="local/chat-model", tools=tools, **service, **options)


def responses() -> dict:
    (reply,) = searching_generator().run([ChatMessage.from_user(QUESTION)])["replies"]
    return {"text": reply.text}


def streamed_responses() -> dict:
    chunks = []
    generator = searching_generator(streaming_callback=chunks.append)
    (reply,) = generator.run([ChatMessage.from_user(QUESTION)])["replies"]
    return {"text": reply.text, "pieces": [chunk.content for chunk in chunks if chunk.content]}


report(
    "haystack-ai",
    {
        "chat": chat,
        "stream": stream,
        "embeddings": embeddings,
        "tools": tools,
        "responses": responses,
        "streamed responses": streamed_responses,
    },
)
