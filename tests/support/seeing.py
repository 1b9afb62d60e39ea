"""This is where a model server sees: an OpenAI-compatible server that answers with the checksums of the pictures it was sent."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Seeing:
    """url: of its /v1. sent: the addresses of pictures in each request, as they came."""

    url: str = ""
    sent: list[list[str]] = field(default_factory=list)


def checksums(*pictures: bytes) -> str:
    """What it answers when it was sent these."""
    return " ".join(hashlib.sha256(data).hexdigest()[:12] for data in pictures)


@contextmanager
def serve() -> Iterator[Seeing]:
    told = Seeing()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            addresses = list(_addresses(body))
            told.sent.append(addresses)
            text = " ".join(_seen(address) for address in addresses)
            common: dict[str, Any] = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "sees"}
            usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
            frames = [
                {**common, "choices": [{"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": None}]},
                {**common, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
                {**common, "choices": [], "usage": usage},
            ]
            reply = b"".join(b"data: %b\n\n" % json.dumps(frame).encode() for frame in frames) + b"data: [DONE]\n\n"
            self._answer("text/event-stream", reply)

        def do_GET(self) -> None:
            self._answer("application/json", json.dumps({"object": "list", "data": [{"id": "sees", "object": "model"}]}).encode())

        def _answer(self, kind: str, reply: bytes) -> None:
            self.send_response(200)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    told.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield told
    finally:
        server.shutdown()
        server.server_close()


def _addresses(body: dict[str, Any]) -> Iterator[str]:
    for message in body["messages"]:
        for part in message["content"] if isinstance(message["content"], list) else ():
            if part["type"] == "image_url":
                yield part["image_url"]["url"]
            yield from part.get("video") or ()


def _seen(address: str) -> str:
    head, comma, text = address.partition(";base64,")
    return checksums(base64.b64decode(text)) if comma and head.startswith("data:image/") else f"not bytes: {address[:40]}"
