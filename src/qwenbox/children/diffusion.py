"""This is where a folder of diffusers weights draws: a process of its own that serves one pipeline on a loopback port.

python -m qwenbox.children.diffusion — reads one line of JSON (`Settings`) from stdin, loads, prints one line {"address": …} on stdout
once it serves, and ends when stdin closes. Needs the extra qwenbox[images]. Imports nothing of the gateway.

POST /draw with the settings' key and a `Wish` answers lines of JSON as they come: {"step", "of"}, then {"image"} (a PNG file, base64), or
{"error", "is_wish"}: is_wish where the wish was at fault. Whoever hangs up ends the drawing at its next step.
"""

# pyright: reportMissingImports=false, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownParameterType=false
# pyright: reportUnknownArgumentType=false, reportMissingParameterType=false, reportMissingTypeArgument=false
# torch, diffusers and Pillow come with the extra and are not where the checks run; this file is the only one that sees them.

import base64
import ctypes
import hmac
import inspect
import io
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeAlias, TypedDict

import torch
from diffusers import DiffusionPipeline
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

PR_SET_PDEATHSIG = 1
SOFTWARE = "qwenbox"
MARK = "AI"
# A wish is a prompt and a few numbers.
MOST_WISH_BYTES = 1_000_000


# Hears the step that is done, and of how many.
Told: TypeAlias = Callable[[int, int], None]


class Settings(TypedDict):
    """What the parent decides. device: "" takes a GPU if there is one. dtype: "" takes bfloat16 there, float32 on a processor."""

    parent_pid: int
    folder: str
    key: str
    device: str
    dtype: str
    threads: int


class Wish(TypedDict):
    """One picture. steps, guidance: None is the pipeline's own."""

    prompt: str
    negative_prompt: str
    width: int
    height: int
    seed: int
    steps: int | None
    guidance: float | None
    has_watermark: bool


class Refused(Exception):
    """The wish is not one that this pipeline can fulfil; the text is for its caller."""


class Painter:
    """A loaded pipeline; one picture at a time."""

    def __init__(self, settings: Settings) -> None:
        if settings["threads"]:
            torch.set_num_threads(settings["threads"])
        device = settings["device"] or ("cuda" if torch.cuda.is_available() else "cpu")
        dtype = getattr(torch, settings["dtype"] or ("float32" if device == "cpu" else "bfloat16"))
        # Nothing is fetched, no pickle is opened and no code of the folder's is run.
        self._pipeline: Any = DiffusionPipeline.from_pretrained(
            settings["folder"], torch_dtype=dtype, local_files_only=True, use_safetensors=True, trust_remote_code=False
        ).to(device)
        self._pipeline.set_progress_bar_config(disable=True)
        self._takes = frozenset(inspect.signature(self._pipeline.__call__).parameters)
        self._lock = threading.Lock()

    def draw(self, wish: Wish, told: Told) -> bytes:
        """told: called with step and steps after each. Raises Refused."""
        with self._lock:
            arguments = self._arguments(wish, told)
            try:
                image = self._pipeline(**arguments).images[0]
            except ValueError as error:  # diffusers' own word for arguments that do not fit
                raise Refused(f"The pipeline cannot draw this: {str(error)[:200]}") from error
        if image.size != (wish["width"], wish["height"]):
            width, height = image.size
            raise Refused(f"The pipeline draws {width}x{height} in place of {wish['width']}x{wish['height']}: ask for a size it knows.")
        return _png(image.convert("RGB"), has_watermark=wish["has_watermark"])

    def _arguments(self, wish: Wish, told: Told) -> dict[str, Any]:
        multiple = int(getattr(self._pipeline, "vae_scale_factor", 1) or 1)
        if wish["width"] % multiple or wish["height"] % multiple:
            raise Refused(f"The sides of a picture must be multiples of {multiple} pixels for this model.")
        arguments: dict[str, Any] = {"prompt": wish["prompt"], "width": wish["width"], "height": wish["height"]}
        # Drawn on the processor, so that a seed means the same on every device.
        arguments["generator"] = torch.Generator("cpu").manual_seed(wish["seed"])
        if wish["negative_prompt"]:
            arguments["negative_prompt"] = wish["negative_prompt"]
        if wish["steps"]:
            arguments["num_inference_steps"] = wish["steps"]
        if wish["guidance"] is not None:
            # Models whose guidance is distilled into them call the real thing `true_cfg_scale`.
            arguments["true_cfg_scale" if "true_cfg_scale" in self._takes else "guidance_scale"] = wish["guidance"]
        if missing := sorted(set(arguments) - self._takes):
            raise Refused(f"This model does not understand {', '.join(missing)}.")
        if "callback_on_step_end" in self._takes:
            arguments["callback_on_step_end"] = _teller(told, wish["steps"])
        return arguments


def _teller(told: Told, steps: int | None) -> Any:
    def tell(pipeline: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        told(step + 1, steps or getattr(pipeline, "num_timesteps", 0))
        return values

    return tell


def _png(image: Image.Image, *, has_watermark: bool) -> bytes:
    if has_watermark:
        size = max(12, min(image.size) // 24)
        draw = ImageDraw.Draw(image)
        place = (image.width - size // 2, image.height - size // 2)
        draw.text(place, MARK, fill="white", anchor="rs", font_size=size, stroke_width=max(1, size // 12), stroke_fill="black")
    texts = PngInfo()
    texts.add_text("Software", SOFTWARE)
    written = io.BytesIO()
    image.save(written, "PNG", pnginfo=texts)
    return written.getvalue()


def handler(painter: Painter, key: str) -> type[BaseHTTPRequestHandler]:
    """What answers one connection."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            given = self.headers.get("authorization", "")
            if (
                self.path != "/draw"
                or not 0 < length <= MOST_WISH_BYTES
                or not hmac.compare_digest(given.encode(), f"Bearer {key}".encode())
            ):
                self.send_error(403)
                return
            wish: Wish = json.loads(self.rfile.read(length))
            self.send_response(200)
            self.send_header("content-type", "application/x-ndjson")
            self.end_headers()  # no length: the answer ends with its connection
            try:
                image = painter.draw(wish, self._tell)
                self._say({"image": base64.b64encode(image).decode()})
            except Refused as error:
                self._say({"error": str(error), "is_wish": True})
            except (BrokenPipeError, ConnectionResetError):
                pass  # nobody waits for it any more
            except Exception as error:  # noqa: BLE001 - the child's last line: the next picture may be well
                print(f"drawing failed: {error!r}", file=sys.stderr, flush=True)
                self._say({"error": type(error).__name__, "is_wish": False})

        def _tell(self, step: int, of: int) -> None:
            self._say({"step": step, "of": of})

        def _say(self, line: dict[str, Any]) -> None:
            self.wfile.write(json.dumps(line).encode() + b"\n")
            self.wfile.flush()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: a line of the log per call says nothing to anybody."""

    return Handler


def main() -> None:
    """Serve until stdin closes."""
    line = sys.stdin.readline()
    if not line:
        return
    settings: Settings = json.loads(line)
    _die_with_parent(settings["parent_pid"])
    ready = os.dup(1)
    os.dup2(2, 1)  # whatever a library prints is log
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(Painter(settings), settings["key"]))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    os.write(ready, json.dumps({"address": f"http://127.0.0.1:{server.server_port}"}).encode() + b"\n")
    sys.stdin.read()
    os._exit(0)


def _die_with_parent(parent_pid: int) -> None:
    """The kernel kills us with the parent even while a long load keeps us from looking at stdin (Linux; elsewhere stdin must do)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(0)


if __name__ == "__main__":
    main()
