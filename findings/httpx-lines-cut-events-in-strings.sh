#!/usr/bin/env bash
# huggingface_hub 2.4.0 (InferenceClient) and ollama 0.6.3 (Client), both on the lines of httpx.
#
# Expected: a streamed answer may contain U+0085, U+2028 or U+2029, which text of PDFs and office files has as line
#   breaks. JSON allows them in strings (RFC 8259 §7), only CR and LF end a line of an event stream (WHATWG HTML
#   §9.2.5) or of JSON lines, and httpx-sse and the openai client read such a stream.
# Behaviour: iter_lines follows str.splitlines, which also ends lines at these characters. Both clients cut the JSON in
#   the middle of the string and raise JSONDecodeError; the same text without a stream arrives.
# Output seen: openai, httpx-sse and the unstreamed answer: the whole text; huggingface_hub and ollama: JSONDecodeError
#
# Exits with 0 while the behaviour is as described, and with 1 once it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet huggingface_hub==2.4.0 ollama==0.6.3 openai==3.57.0 httpx-sse==0.4.3
"$folder/venv/bin/python" - <<'PYTHON'
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import httpx_sse
import ollama
from huggingface_hub import InferenceClient
from openai import OpenAI

TEXT = "Clause 4 ends\u2028in May\u0085at noon."
MESSAGES = [{"role": "user", "content": "When does clause 4 end?"}]


class Model(BaseHTTPRequestHandler):
    def do_POST(self):
        streamed = json.loads(self.rfile.read(int(self.headers["content-length"]))).get("stream")
        self.send_response(200)
        message = {"role": "assistant", "content": TEXT}
        if self.path == "/api/chat":
            kind, body = "application/x-ndjson", self.line({"model": "m", "message": message, "done": True}) + b"\n"
        elif streamed:
            chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
            chunk["choices"] = [{"index": 0, "delta": message, "finish_reason": "stop"}]
            kind, body = "text/event-stream", b"data: " + self.line(chunk) + b"\n\ndata: [DONE]\n\n"
        else:
            answer = {"id": "c", "object": "chat.completion", "created": 1, "model": "m"}
            answer["choices"] = [{"index": 0, "message": message, "finish_reason": "stop"}]
            answer["usage"] = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
            kind, body = "application/json", self.line(answer)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def line(self, value):
        return json.dumps(value, ensure_ascii=False).encode()

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Model)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}"
hub = InferenceClient(base_url=f"{url}/v1", api_key="none")


def text_of(chunks):
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


def by_httpx_sse():
    request = {"model": "m", "messages": MESSAGES, "stream": True}
    with httpx.Client() as client, httpx_sse.connect_sse(client, "POST", f"{url}/v1/chat", json=request) as events:
        return json.loads(next(events.iter_sse()).data)["choices"][0]["delta"]["content"]


calls = {
    "openai": lambda: text_of(
        OpenAI(base_url=f"{url}/v1", api_key="none").chat.completions.create(model="m", messages=MESSAGES, stream=True)
    ),
    "httpx-sse": by_httpx_sse,
    "huggingface_hub, no stream": lambda: hub.chat_completion(MESSAGES, model="m").choices[0].message.content,
    "huggingface_hub": lambda: text_of(hub.chat_completion(MESSAGES, model="m", stream=True)),
    "ollama": lambda: "".join(part.message.content for part in ollama.Client(url).chat("m", MESSAGES, stream=True)),
}
seen = {}
for name, call in calls.items():
    try:
        seen[name] = ascii(call())
    except json.JSONDecodeError as error:
        seen[name] = type(error).__name__
    print(f"{name}: {seen[name]}")
broken = [name for name, text in seen.items() if text == "JSONDecodeError"]
whole = [name for name, text in seen.items() if text == ascii(TEXT)]
sys.exit(0 if broken == ["huggingface_hub", "ollama"] and len(whole) == 3 else 1)
PYTHON
