"""pydantic-ai: agents on chat completions."""

from openai import AsyncOpenAI
from pydantic_ai import Agent, Embedder, NativeToolReturnPart, TextPart, ToolCallPart
from pydantic_ai.capabilities import NativeTool
from pydantic_ai.embeddings.openai import OpenAIEmbeddingModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.native_tools import FileSearchTool
from pydantic_ai.providers.openai import OpenAIProvider
from reporting import API_KEY, BASE_URL, HELLO, QUESTION, STORE_KEY, TEXTS, VECTOR_STORE_ID, WEATHER, report


def provider(key: str = API_KEY) -> OpenAIProvider:
    return OpenAIProvider(openai_client=AsyncOpenAI(base_url=BASE_URL, api_key=key, max_retries=0))


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


def searching_agent() -> Agent:
    model = OpenAIResponsesModel("local/chat-model", provider=provider(STORE_KEY))
    settings = {"openai_include_file_search_results": True}
    search = NativeTool(FileSearchTool(file_store_ids=[VECTOR_STORE_ID]))
    return Agent(model, model_settings=settings, capabilities=[search])


def result_of(text: str, response) -> dict:
    parts = [part for part in response.parts if isinstance(part, TextPart)]
    sources = [
        {"type": type(source).__name__, "file_id": source.document_id, "filename": source.title}
        for part in parts
        for citation in part.citations or ()
        for source in citation.sources
    ]
    (search,) = [part.content for part in response.parts if isinstance(part, NativeToolReturnPart)]
    found = [{key: result[key] for key in ("file_id", "filename", "text")} for result in search["results"]]
    return {"text": text, "sources": sources, "found": found}


async def responses() -> dict:
    answer = await searching_agent().run(QUESTION)
    return result_of(answer.output, answer.response)


async def streamed_responses() -> dict:
    async with searching_agent().run_stream(QUESTION) as streamed:
        pieces = [piece async for piece in streamed.stream_text(delta=True, debounce_by=None)]
        return {**result_of(await streamed.get_output(), streamed.response), "pieces": pieces}


report(
    "pydantic-ai-slim",
    {
        "chat": chat,
        "stream": stream,
        "citations": citations,
        "streamed citations": streamed_citations,
        "embeddings": embeddings,
        "tools": tools,
        "responses": responses,
        "streamed responses": streamed_responses,
    },
)
