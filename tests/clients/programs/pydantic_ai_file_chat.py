"""Asks about an attached PDF with a pydantic-ai agent, and prints what the agent returned as JSON."""

import asyncio
import base64
import json
import os

from openai import AsyncOpenAI
from pydantic_ai import Agent, BinaryContent, TextPart
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider


async def main() -> None:
    client = AsyncOpenAI(base_url=os.environ["BASE_URL"], api_key=os.environ["API_KEY"], max_retries=0)
    agent = Agent(OpenAIChatModel("local/chat-model", provider=OpenAIProvider(openai_client=client)))
    file = BinaryContent(data=base64.b64decode(os.environ["FILE"]), media_type="application/pdf")
    answer = await agent.run([os.environ["QUESTION"], file])
    parts = [part for part in answer.response.parts if isinstance(part, TextPart)]
    sources = [source for part in parts for citation in part.citations or () for source in citation.sources]
    print(json.dumps({"text": answer.output, "sources": [[source.url, list(source.excerpts)] for source in sources]}))


asyncio.run(main())
