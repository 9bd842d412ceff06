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
from ragsvc.core.gateway.endpoint_families import Family
from ragsvc.providers import rego_subset

_MAX_ANSWER_BYTES: Final = 1 << 20


class RegoFile:
    """Evaluates ``data.ragsvc.allow`` of a Rego file with regorus; a single thread uses the engine.

    The file decides as on an OPA server, or is refused (``rego_subset``).
    """

    def __init__(self, path: Path) -> None:
        """Read the file and evaluate it with an example of each endpoint family.

        Raises:
            ConfigurationError: the file cannot be read, is not Rego, has parts that could decide otherwise than OPA, or
                the extra is not installed.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError([f"policy_file: {path} cannot be read ({error})"]) from error
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rego")
        try:
            self._thread.submit(self._load, text).result()
        except ConfigurationError:
            self.close()
            raise

    def _load(self, text: str) -> None:
        try:
            from regorus import Engine  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise ConfigurationError(
                ["policy_file needs the extra 'policies': pip install 'ragsvc[policies]'"]
            ) from error
        self._engine: Any = Engine()
        try:
            package = self._engine.add_policy("policy", text)
            (source,) = msgspec.json.decode(self._engine.get_ast_as_json())
        except Exception as error:  # regorus raises RuntimeError
            raise ConfigurationError([f"policy_file: {_first_lines(error)}"]) from error
        if package != "data.ragsvc":
            raise ConfigurationError([f"policy_file: the package must be ragsvc, not {package.removeprefix('data.')}."])
        tree = source["ast"]
        if refused := rego_subset.refusals(tree):
            raise ConfigurationError(
                [
                    f"policy_file: {reason} may decide otherwise than an OPA server; use policy_url."
                    for reason in refused
                ]
            )
        self._changes_case = rego_subset.changes_case(tree)
        if self._changes_case and rego_subset.has_special_case(text):
            raise ConfigurationError(
                ["policy_file: lower and upper of letters such as ß, Σ and İ may decide otherwise than an OPA server."]
            )
        try:
            for given in ({}, *map(_example, Family)):
                self._evaluate(given)
        except Exception as error:  # as above
            raise ConfigurationError([f"policy_file: {_first_lines(error)}"]) from error

    async def __call__(self, given: Mapping[str, Any]) -> bool:
        """Whether the policy allows the input: only if ``allow`` is ``true``, not if it is undefined."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._evaluate, given)

    def _evaluate(self, given: Mapping[str, Any]) -> bool:
        encoded = msgspec.json.encode(given).decode()
        if self._changes_case and rego_subset.has_special_case(encoded):
            raise ValueError("The cases of a letter in the input may differ from those of an OPA server.")
        self._engine.set_input_json(encoded)
        return self._engine.eval_rule("data.ragsvc.allow") is True

    def close(self) -> None:
        self._thread.submit(self._release)
        self._thread.shutdown()

    def _release(self) -> None:
        self._engine = None  # its thread must free it


def _example(family: Family) -> dict[str, Any]:
    """An input such as requests have, which shows a call with arguments of the wrong type at the start."""
    key = {"id": "key_1", "label": "example", "tenant": "default", "scopes": ["chat", "search"]}
    return {"key": key, "model": "local/chat-model", "family": family.value}


def _first_lines(error: Exception) -> str:
    """The message of regorus without its stack."""
    return " ".join(str(error).partition("Stack backtrace")[0].split())


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
