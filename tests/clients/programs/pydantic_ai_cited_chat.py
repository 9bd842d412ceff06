"""Asks a cited question with a pydantic-ai agent, whole and streamed, and prints what the agent returned as JSON."""

import asyncio
import json
import os

from openai import AsyncOpenAI
from pydantic_ai import Agent, TextPart
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

QUESTION = os.environ["QUESTION"]


def sources_of(response) -> list[dict]:
    parts = [part for part in response.parts if isinstance(part, TextPart)]
    citations = [citation for part in parts for citation in part.citations or ()]
    return [
        {"url": source.url, "title": source.title, "excerpts": list(source.excerpts)}
        for citation in citations
        for source in citation.sources
    ]


async def main() -> None:
    client = AsyncOpenAI(base_url=os.environ["BASE_URL"], api_key=os.environ["API_KEY"], max_retries=0)
    model = OpenAIChatModel("local/chat-model", provider=OpenAIProvider(openai_client=client))
    agent = Agent(model, model_settings={"extra_body": {"use_rag": True}})
    whole = await agent.run(QUESTION)
    async with agent.run_stream(QUESTION) as streamed:
        text = await streamed.get_output()
        response = streamed.response
    answers = {
        "whole": {"text": whole.output, "sources": sources_of(whole.response)},
        "stream": {"text": text, "sources": sources_of(response)},
    }
    print(json.dumps(answers))


asyncio.run(main())
