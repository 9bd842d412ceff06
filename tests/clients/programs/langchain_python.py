"""LangChain for Python."""

import functools
import importlib.util
import json
import operator
import os
from pathlib import Path

from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from openai import BadRequestError
from reporting import API_KEY, BASE_URL, HELLO, QUESTION, STORE_KEY, TEXTS, VECTOR_STORE_ID, WEATHER, report

SERVICE = {"base_url": BASE_URL, "api_key": API_KEY, "max_retries": 0}

# LiteLLM's package holds the table of cl100k, which tiktoken would download
TABLES = Path(importlib.util.find_spec("litellm").origin).parent / "litellm_core_utils" / "tokenizers"


def chat() -> dict:
    return {"text": ChatOpenAI(model="backend-model", **SERVICE).invoke(HELLO).text}


def stream() -> dict:
    chunks = ChatOpenAI(model="backend-model", **SERVICE).stream(HELLO)
    return {"pieces": [chunk.text for chunk in chunks if chunk.text]}


def embeddings() -> dict:
    model = OpenAIEmbeddings(model="local/embedding-model", check_embedding_ctx_length=False, **SERVICE)
    return {"vectors": model.embed_documents(TEXTS)}


def token_arrays() -> dict:
    """With the default options the class sends cl100k tokens, which the model does not know."""
    os.environ["TIKTOKEN_CACHE_DIR"] = str(TABLES)
    try:
        OpenAIEmbeddings(model="local/embedding-model", **SERVICE).embed_documents(TEXTS)
    except BadRequestError as error:
        return {"error": error.message}
    raise AssertionError("tokens of another tokenizer were accepted")


def tools() -> dict:
    @tool
    def get_weather(city: str) -> str:
        """Tells the weather of a city."""
        assert city == "Paris"
        return WEATHER

    model = ChatOpenAI(model="tools", **SERVICE).bind_tools([get_weather])
    messages = [HumanMessage("What is the weather in Paris?")]
    asked = model.invoke(messages)
    (call,) = asked.tool_calls
    result = get_weather.invoke(call)
    assert isinstance(result, ToolMessage)
    answer = model.invoke([*messages, asked, result])
    return {"calls": [{"name": call["name"], "arguments": json.dumps(call["args"])}], "text": answer.text}


def searching_model():
    service = {**SERVICE, "api_key": STORE_KEY}
    model = ChatOpenAI(
        model="local/chat-model", use_responses_api=True, include=["file_search_call.results"], **service
    )
    return model.bind_tools([{"type": "file_search", "vector_store_ids": [VECTOR_STORE_ID]}])


def result_of(message) -> dict:
    (text,) = [block for block in message.content if block["type"] == "text"]
    (search,) = [block for block in message.content if block["type"] == "file_search_call"]
    (standard,) = [block for block in message.content_blocks if block["type"] == "text"]
    assert [citation["type"] for citation in standard["annotations"]] == ["citation"]
    return {
        "text": message.text,
        "sources": [
            {key: annotation.get(key) for key in ("type", "file_id", "filename", "page")}
            for annotation in text["annotations"]
        ],
        "found": [{key: result[key] for key in ("file_id", "filename", "text")} for result in search["results"]],
    }


def responses() -> dict:
    return result_of(searching_model().invoke(QUESTION))


def streamed_responses() -> dict:
    chunks = list(searching_model().stream(QUESTION))
    whole = functools.reduce(operator.add, chunks)
    return {**result_of(whole), "pieces": [chunk.text for chunk in chunks if chunk.text]}


report(
    "langchain-openai",
    {
        "chat": chat,
        "stream": stream,
        "embeddings": embeddings,
        "token arrays": token_arrays,
        "tools": tools,
        "responses": responses,
        "streamed responses": streamed_responses,
    },
)
