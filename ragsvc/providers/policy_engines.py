"""Policy engines for Rego: a file evaluated in this process (extra ``policies``), or an Open Policy Agent server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec

from ragsvc.core.errors import ConfigurationError, UpstreamFailed

_MAX_ANSWER_BYTES: Final = 1 << 20


class RegoFile:
    """Evaluates ``data.ragsvc.allow`` of a Rego file with rego-cpp; a single thread uses the interpreter."""

    def __init__(self, path: Path) -> None:
        """Read the file and evaluate it once.

        Raises:
            ConfigurationError: the file cannot be read, is not Rego, or the extra is not installed.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError([f"policy_file: {path} cannot be read ({error})"]) from error
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rego")
        try:
            self._thread.submit(self._load, text).result()
        except ConfigurationError:
            self._thread.shutdown()
            raise

    def _load(self, text: str) -> None:
        try:
            from regopy import Interpreter  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise ConfigurationError(
                ["policy_file needs the extra 'policies': pip install 'ragsvc[policies]'"]
            ) from error
        self._interpreter: Any = Interpreter()
        try:
            self._interpreter.add_module("policy", text)
            self._evaluate({})
        except Exception as error:  # rego-cpp raises both its own and built-in exceptions
            raise ConfigurationError([f"policy_file: {error}"]) from error

    async def __call__(self, given: Mapping[str, Any]) -> bool:
        """Whether the policy allows the input: only if ``allow`` is ``true``, not if it is undefined."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._evaluate, given)

    def _evaluate(self, given: Mapping[str, Any]) -> bool:
        self._interpreter.set_input(dict(given))
        answer = str(self._interpreter.query("x = data.ragsvc.allow"))
        if answer == "undefined":
            return False
        return msgspec.json.decode(answer, type=_RegoAnswer).bindings.get("x") is True

    def close(self) -> None:
        self._thread.shutdown()


class _RegoAnswer(msgspec.Struct):
    bindings: dict[str, Any]


class _OpaAnswer(msgspec.Struct):
    result: Any = None


def opa_server(url: str, session: aiohttp.ClientSession) -> Callable[[Mapping[str, Any]], Awaitable[bool]]:
    """A function that asks an OPA server for a decision; ``url`` is that of the rule (``…/v1/data/ragsvc/allow``).

    OPA Data API: ``POST {"input": …}`` returns ``{"result": true}``. No result means undefined, which does not allow.
    """

    async def decide(given: Mapping[str, Any]) -> bool:
        body = msgspec.json.encode({"input": given})
        headers = {"Content-Type": "application/json"}
        async with session.post(url, data=body, headers=headers, allow_redirects=False) as answer:
            if answer.status != 200:
                raise UpstreamFailed(
                    f"The policy server answered with status {answer.status}.", upstream_status=answer.status
                )
            text = await answer.content.read(_MAX_ANSWER_BYTES)
        return msgspec.json.decode(text, type=_OpaAnswer).result is True

    return decide
