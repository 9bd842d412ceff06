"""The OpenAI Agents SDK for Python: agents on chat completions, and tools of the MCP server."""

import json

from agents import (
    Agent,
    FileSearchTool,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from agents.mcp import MCPServerStreamableHttp
from openai import AsyncOpenAI
from openai.types.responses import ResponseTextDeltaEvent
from reporting import API_KEY, BASE_URL, HELLO, MCP_URL, QUESTION, STORE_KEY, VECTOR_STORE_ID, WEATHER, report

set_tracing_disabled(disabled=True)


def agent_of(name: str, **options) -> Agent:
    client = AsyncOpenAI(base_url=BASE_URL, api_key=API_KEY, max_retries=0)
    return Agent(name="assistant", model=OpenAIChatCompletionsModel(model=name, openai_client=client), **options)


def cited_agent() -> Agent:
    return agent_of("local/chat-model", model_settings=ModelSettings(extra_body={"use_rag": True}))


def sources_of(result) -> list[dict]:
    contents = [content for response in result.raw_responses for item in response.output for content in item.content]
    return [
        {
            "type": type(annotation).__name__,
            "url": annotation.url,
            "title": annotation.title,
            "marker": [annotation.start_index, annotation.end_index],
        }
        for content in contents
        for annotation in content.annotations
    ]


async def chat() -> dict:
    return {"text": (await Runner.run(agent_of("backend-model"), HELLO)).final_output}


async def stream() -> dict:
    result = Runner.run_streamed(agent_of("backend-model"), HELLO)
    events = [event.data async for event in result.stream_events() if event.type == "raw_response_event"]
    return {"pieces": [event.delta for event in events if isinstance(event, ResponseTextDeltaEvent)]}


async def citations() -> dict:
    result = await Runner.run(cited_agent(), QUESTION)
    return {"text": result.final_output, "sources": sources_of(result)}


async def streamed_citations() -> dict:
    result = Runner.run_streamed(cited_agent(), QUESTION)
    async for _event in result.stream_events():
        pass
    return {"text": result.final_output, "sources": sources_of(result)}


async def tools() -> dict:
    seen = []

    @function_tool
    def get_weather(city: str) -> str:
        seen.append({"name": "get_weather", "arguments": json.dumps({"city": city})})
        return WEATHER

    result = await Runner.run(agent_of("tools", tools=[get_weather]), "What is the weather in Paris?")
    return {"calls": seen, "text": result.final_output}


async def mcp() -> dict:
    parameters = {"url": MCP_URL, "headers": {"authorization": f"Bearer {API_KEY}"}}
    async with MCPServerStreamableHttp(params=parameters, client_session_timeout_seconds=60) as server:
        names = [tool.name for tool in await server.list_tools()]
        found = await server.call_tool("search", {"query": QUESTION})
    return {"tools": names, "results": json.loads(found.content[0].text)["results"]}


def searching_agent() -> Agent:
    client = AsyncOpenAI(base_url=BASE_URL, api_key=STORE_KEY, max_retries=0)
    tool = FileSearchTool(vector_store_ids=[VECTOR_STORE_ID], max_num_results=3, include_search_results=True)
    model = OpenAIResponsesModel(model="local/chat-model", openai_client=client)
    return Agent(name="assistant", model=model, tools=[tool])


def result_of(result) -> dict:
    search, message = (item for response in result.raw_responses for item in response.output)
    return {
        "text": result.final_output,
        "sources": [
            {
                "type": type(annotation).__name__,
                "file_id": annotation.file_id,
                "filename": annotation.filename,
                "page": annotation.page,
            }
            for annotation in message.content[0].annotations
        ],
        "found": [{"file_id": hit.file_id, "filename": hit.filename, "text": hit.text} for hit in search.results],
    }


async def responses() -> dict:
    return result_of(await Runner.run(searching_agent(), QUESTION))


async def streamed_responses() -> dict:
    result = Runner.run_streamed(searching_agent(), QUESTION)
    events = [event.data async for event in result.stream_events() if event.type == "raw_response_event"]
    pieces = [event.delta for event in events if isinstance(event, ResponseTextDeltaEvent)]
    return {**result_of(result), "pieces": pieces}


report(
    "openai-agents",
    {
        "chat": chat,
        "stream": stream,
        "citations": citations,
        "streamed citations": streamed_citations,
        "tools": tools,
        "mcp": mcp,
        "responses": responses,
        "streamed responses": streamed_responses,
    },
)
