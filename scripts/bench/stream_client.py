"""A client of ``scripts/bench/crypto.py --stream``: streams chats, plain or sealed, with the package of one revision.

    stream_client.py ROOT URL KEY TOKENS

Reads lines ``plain`` or ``sealed``, and writes the seconds that each chat took and the processor seconds of the client.
"""

from __future__ import annotations

import http.client
import json
import sys
import time
from urllib.parse import urlsplit

PATH = "/v1/chat/completions"
BODY = json.dumps(
    {"model": "fast", "messages": [{"role": "user", "content": "Hello there, what can you do?"}], "stream": True}
).encode()


def main() -> None:
    root, url, key, tokens = sys.argv[1:]
    sys.path.insert(0, root)
    from ragsvc.crypto import hpke, sealed_headers  # noqa: PLC0415 - of the revision that is measured
    from ragsvc.crypto.hpke_stream import StreamOpener, bind_request  # noqa: PLC0415

    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    connection.request("GET", "/v1/hpke/key")
    public_key = sealed_headers.decode_base64(json.loads(connection.getresponse().read())["public_key"])

    def plain() -> bytes:
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        connection.request("POST", PATH, BODY, headers)
        reply, pieces = connection.getresponse(), []
        while piece := reply.read1(65536):
            pieces.append(piece)
        return b"".join(pieces)

    def sealed() -> bytes:
        context = hpke.set_up_sender(public_key, sealed_headers.INFO)
        aad = bind_request(method="POST", target=PATH, content_type="application/json", api_key=key)
        headers = {
            "Authorization": f"Bearer {key}",
            "X-HPKE-Enc": sealed_headers.encode_base64(context.enc),
            "X-HPKE-Content-Type": "application/json",
            "Content-Type": sealed_headers.ONE_SHOT_MEDIA_TYPE,
            "Accept": sealed_headers.STREAM_MEDIA_TYPE,
        }
        connection.request("POST", PATH, context.seal(BODY, aad), headers)
        reply, opener, pieces = connection.getresponse(), StreamOpener(context), []
        while piece := reply.read1(65536):
            pieces.append(opener.feed(piece))
        pieces.append(opener.finish())
        return b"".join(pieces)

    for line in sys.stdin:
        begin, spent = time.perf_counter(), time.thread_time()
        answer = plain() if line.strip() == "plain" else sealed()
        figures = {"s": time.perf_counter() - begin, "processor_s": time.thread_time() - spent}
        if answer.count(b" word") != int(tokens):
            sys.exit("the service sent a wrong response")
        sys.stdout.write(json.dumps(figures) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
