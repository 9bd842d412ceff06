"""Asks a cited question with the LiteLLM SDK, whole and streamed, and prints what the SDK returned as JSON."""

import json
import os

import litellm

litellm.suppress_debug_info = True
ASKED = {
    "model": "openai/local/chat-model",
    "messages": [{"role": "user", "content": os.environ["QUESTION"]}],
    "api_base": os.environ["BASE_URL"],
    "api_key": os.environ["API_KEY"],
    "max_retries": 0,
    "extra_body": {"use_rag": True},
}

message = litellm.completion(**ASKED).choices[0].message
text, annotations = "", []
for chunk in litellm.completion(**ASKED, stream=True):
    delta = chunk.choices[0].delta
    text += delta.content or ""
    annotations += getattr(delta, "annotations", None) or []
whole = {"text": message.content, "annotations": [dict(annotation) for annotation in message.annotations]}
print(json.dumps({"whole": whole, "stream": {"text": text, "annotations": [dict(one) for one in annotations]}}))
