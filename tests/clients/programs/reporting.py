"""What all programs share: their input from the environment, and the JSON object that they print."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import traceback
from collections.abc import Callable
from importlib import metadata
from typing import Any

BASE_URL = os.environ.get("BASE_URL", "")
API_KEY = os.environ.get("API_KEY", "")
MCP_URL = os.environ.get("MCP_URL", "")
QUESTION = os.environ.get("QUESTION", "")
DOCUMENT_ID = os.environ.get("DOCUMENT_ID", "")
STORE_KEY = os.environ.get("STORE_KEY", "")  # of a tenant with the vector store and file
VECTOR_STORE_ID = os.environ.get("VECTOR_STORE_ID", "")
UPLOAD = os.environ.get("UPLOAD", "")  # the path of a file about a crane
WEATHER = os.environ.get("WEATHER", "")  # the result of the tool, which differs in every run

HELLO = "Say hello."
CRANE_QUESTION = "What does the harbour crane lift?"
TEXTS = ["The lighthouse is tall.", "Ships carry oil."]


def report(package: str, features: dict[str, Callable[[], Any]]) -> None:
    """Run each feature, and print the version of the client and the results; a failure does not end the others."""
    results: dict[str, Any] = {}
    for name, feature in features.items():
        try:
            result = feature()
            results[name] = asyncio.run(result) if inspect.isawaitable(result) else result
        except BaseException:  # noqa: BLE001 - whatever a client raises is the result
            results[name] = {"failure": traceback.format_exc()}
    print(json.dumps({"version": metadata.version(package), "features": results}))
