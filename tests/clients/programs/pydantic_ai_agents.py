"""pydantic-ai: agents on chat completions."""

from openai import AsyncOpenAI
from pydantic_ai import Agent, Embedder, TextPart, ToolCallPart
from pydantic_ai.embeddings.openai import OpenAIEmbeddingModel
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from reporting import API_KEY, BASE_URL, HELLO, QUESTION, TEXTS, WEATHER, report


def provider() -> OpenAIProvider:
    return OpenAIProvider(openai_client=AsyncOpenAI(base_url=BASE_URL, api_key=API_KEY, max_retries=0))


def agent_of(name: str, **options) -> Agent:
    return Agent(OpenAIChatModel(name, provider=provider()), **options)


def cited_agent() -> Agent:
    return agent_of("local/chat-model", model_settings={"extra_body": {"use_rag": True}})


def sources_of(response) -> list[dict]:
    parts = [part for part in response.parts if isinstance(part, TextPart)]
    return [
        {"type": type(citation).__name__, "url": source.url, "title": source.title, "quote": "".join(source.excerpts)}
        for part in parts
        for citation in part.citations or ()
        for source in citation.sources
    ]


async def chat() -> dict:
    return {"text": (await agent_of("backend-model").run(HELLO)).output}


async def stream() -> dict:
    async with agent_of("backend-model").run_stream(HELLO) as streamed:
        return {"pieces": [piece async for piece in streamed.stream_text(delta=True, debounce_by=None)]}


async def citations() -> dict:
    answer = await cited_agent().run(QUESTION)
    return {"text": answer.output, "sources": sources_of(answer.response)}


async def streamed_citations() -> dict:
    async with cited_agent().run_stream(QUESTION) as streamed:
        text = await streamed.get_output()
        return {"text": text, "sources": sources_of(streamed.response)}


async def embeddings() -> dict:
    embedder = Embedder(OpenAIEmbeddingModel("local/embedding-model", provider=provider()))
    return {"vectors": [list(vector) for vector in (await embedder.embed_documents(TEXTS)).embeddings]}


async def tools() -> dict:
    agent = agent_of("tools")

    @agent.tool_plain
    def get_weather(city: str) -> str:
        assert city == "Paris"
        return WEATHER

    answer = await agent.run("What is the weather in Paris?")
    parts = [part for message in answer.all_messages() for part in message.parts if isinstance(part, ToolCallPart)]
    calls = [{"name": part.tool_name, "arguments": part.args_as_json_str()} for part in parts]
    return {"calls": calls, "text": answer.output}


report(
    "pydantic-ai-slim",
    {
        "chat": chat,
        "stream": stream,
        "citations": citations,
        "streamed citations": streamed_citations,
        "embeddings": embeddings,
        "tools": tools,
    },
)
