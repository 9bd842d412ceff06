"""A provider whose model answers by quoting the passages in its prompt, each with its marker."""

from __future__ import annotations

import json
import re

from tests.support.recording_provider import EVENTS, JSON, RecordingProvider, sse

_PASSAGE = re.compile(r"<<<passage \[(\d+)\] \w+ \| ([^\n]*)>>>\n(.*?)(?=\n<<<)", re.DOTALL)
_WANTED = re.compile(r"QUOTE: (\S[^\n]*)")


def passages_in(body: bytes) -> list[tuple[int, str, str]]:
    """Number, fence line and text of each passage in a chat request."""
    found = []
    for message in json.loads(body)["messages"]:
        content = message.get("content") or ""
        text = content if isinstance(content, str) else "\n".join(part.get("text", "") for part in content)
        found += [(int(number), fence, text) for number, fence, text in _PASSAGE.findall(text)]
    return found


class QuotingProvider(RecordingProvider):
    """Answers a chat with the lines that contain the words after ``QUOTE:`` (several with ``|``), and their markers."""

    async def _misbehave(self, model, request, fields, receive, send) -> bool:
        if model != "quoter":
            return await super()._misbehave(model, request, fields, receive, send)
        wanted = [
            word
            for found in _WANTED.findall(json.dumps(fields)[:10_000_000])
            for word in found.split('"')[0].split("|")
        ]
        wanted = [word.split("\\n")[0].strip() for word in wanted]
        lines = [
            f"{line.strip()} [{number}]"
            for word in wanted
            for number, _, text in passages_in(request.body)
            for line in text.splitlines()
            if word in line
        ]
        answer = "\n".join(dict.fromkeys(lines)) or "Nothing."
        head = {"id": "chatcmpl-q", "created": 1, "model": model}
        usage = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
        if fields.get("stream"):
            chunks = [
                head
                | {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, "finish_reason": end}]}
                for delta, end in (
                    ({"role": "assistant", "content": answer[:7]}, None),
                    ({"content": answer[7:]}, None),
                    ({}, "stop"),
                )
            ]
            if (fields.get("stream_options") or {}).get("include_usage"):
                chunks.append(head | {"object": "chat.completion.chunk", "choices": [], "usage": usage})
            await self._answer(send, EVENTS, sse(*chunks) + b"data: [DONE]\n\n")
        else:
            message = {"role": "assistant", "content": answer, "refusal": None}
            choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
            body = head | {"object": "chat.completion", "choices": [choice], "usage": usage}
            await self._answer(send, JSON, json.dumps(body).encode())
        return True
