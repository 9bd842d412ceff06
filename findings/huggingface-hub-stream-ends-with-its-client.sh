#!/usr/bin/env bash
# huggingface_hub 2.4.0, InferenceClient.chat_completion(stream=True).
#
# Expected: the iterator that a streamed call returns keeps its connection, as that of the openai client does. A function
#   may create a client, call it and return the stream.
# Behaviour: the response belongs to the client, which closes it when it is collected. The stream of a client to which
#   nothing else refers raises StreamClosed at its first event, though the server has answered it whole.
# Output seen: openai: Clause 4; client kept: Clause 4; client not kept: StreamClosed
#
# Exits with 0 while the behaviour is as described, and with 1 once it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet huggingface_hub==2.4.0 openai==3.57.0
"$folder/venv/bin/python" - <<'PYTHON'
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

from huggingface_hub import InferenceClient
from openai import OpenAI

MESSAGES = [{"role": "user", "content": "Which clause?"}]


class Model(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        choices = [{"index": 0, "delta": {"role": "assistant", "content": "Clause 4"}, "finish_reason": "stop"}]
        chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": choices}
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        self.wfile.write(b"data: " + json.dumps(chunk).encode() + b"\n\ndata: [DONE]\n\n")

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Model)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}/v1"


def stream_of_openai():
    client = OpenAI(base_url=url, api_key="none")
    return client.chat.completions.create(model="m", messages=MESSAGES, stream=True)


def stream_of_the_hub():
    client = InferenceClient(base_url=url, api_key="none")
    return client.chat_completion(MESSAGES, model="m", stream=True)


def read(chunks):
    try:
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    except Exception as error:
        return type(error).__name__


kept = InferenceClient(base_url=url, api_key="none")
seen = {
    "openai": read(stream_of_openai()),
    "client kept": read(kept.chat_completion(MESSAGES, model="m", stream=True)),
    "client not kept": read(stream_of_the_hub()),
}
print(seen)
sys.exit(0 if seen == {"openai": "Clause 4", "client kept": "Clause 4", "client not kept": "StreamClosed"} else 1)
PYTHON
