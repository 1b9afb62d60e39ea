"""The compatible Files and Batches API as the wire reference has it and no more: no usage, no cost, no receipts, results in any order.

Lists are null when they are empty; a name is matched whole; what is not known is a 404 page that is no JSON.
"""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit


class BareService:
    """batches: by id, as they were asked for. A batch ends at the second look; prompts with "bad" in them fail, "lost" ones get no line."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self.address = f"http://127.0.0.1:{self._server.server_port}/compatible-mode/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def keep(self, data: bytes, kind: str) -> str:
        name = f"file-{kind}-{len(self.files):024x}"
        self.files[name] = data
        return name

    def create(self, asked: dict[str, Any]) -> dict[str, Any]:
        batch = {
            "id": f"batch_{len(self.batches)}",
            "object": "batch",
            "errors": None,
            "status": "validating",
            "output_file_id": None,
            "error_file_id": None,
            "created_at": 1776414394,
            "request_counts": {"total": 0, "completed": 0, "failed": 0},
            **asked,
        }
        self.batches[batch["id"]] = batch
        return batch

    def look(self, batch: dict[str, Any]) -> dict[str, Any]:
        before = dict(batch)
        if batch["status"] == "validating":
            batch["status"] = "in_progress"
        elif batch["status"] == "in_progress":
            asked = [json.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]
            results = [_result(each) for each in reversed(asked) if "lost" not in _prompt(each)]
            good, bad = [each for each in results if each["error"] is None], [each for each in results if each["error"]]
            batch["status"] = "completed"
            batch["request_counts"] = {"total": len(asked), "completed": len(good), "failed": len(asked) - len(good)}
            for field, kept in (("output_file_id", good), ("error_file_id", bad)):
                batch[field] = self.keep(b"".join(json.dumps(each).encode() + b"\n" for each in kept), "batch_output") if kept else None
        return before


def _prompt(asked: dict[str, Any]) -> str:
    return asked["body"]["messages"][-1]["content"]


def _result(asked: dict[str, Any]) -> dict[str, Any]:
    error = {"code": "DataInspectionFailed", "message": "no"} if "bad" in _prompt(asked) else None
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": _prompt(asked).upper()}}
    body = {"choices": [choice], "usage": {"prompt_tokens": 1_000, "completion_tokens": 500, "total_tokens": 1_500}}
    response = None if error else {"status_code": 200, "request_id": f"r-{asked['custom_id']}", "body": body}
    return {"id": "x", "custom_id": asked["custom_id"], "response": response, "error": error}


def _handler(service: BareService) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            match parts.path.removeprefix("/compatible-mode/v1/").split("/"):
                case ["files"]:
                    self._say({"object": "list", "data": None, "has_more": False})
                case ["files", file_id, "content"]:
                    self._send(200, service.files[file_id])
                case ["batches"]:
                    name = parse_qs(parts.query).get("ds_name", [""])[0]
                    found = [each for each in service.batches.values() if each["metadata"]["ds_name"] == name]
                    self._say({"object": "list", "data": found or None, "has_more": False})
                case ["batches", batch_id]:
                    self._say(service.look(service.batches[batch_id]))
                case _:
                    self._send(404, b"<html>")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.path.endswith("/files"):
                data = body.split(b"\r\n\r\n", 2)[2].rpartition(b"\r\n--")[0]
                self._say({"id": service.keep(data, "batch"), "object": "file", "bytes": len(data)})
            else:
                self._say(service.create(json.loads(body)))

        def log_message(self, format: str, *args: object) -> None:
            pass

        def _say(self, value: object) -> None:
            self._send(200, json.dumps(value).encode())

        def _send(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler
