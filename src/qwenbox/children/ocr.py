"""This is where pictures are read without a model that sees: their text by RapidOCR, their codes by OpenCV, a few plain facts.

python -m qwenbox.children.ocr — reads one line of JSON (`Settings`) from stdin, prints one line {"address": …} on stdout once
it serves, and ends when stdin closes. POST / with a picture's bytes answers `Reading` as JSON; 422 with {"message": …} says that the bytes
are no picture it can open, 507 that it would take more memory than it may have. One picture at a time. Imports nothing of the gateway.
"""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false, reportMissingTypeArgument=false
# RapidOCR and OpenCV are only partly typed; this file is the only one that sees them.

import ctypes
import hmac
import io
import json
import os
import resource
import signal
import sys
import threading
import warnings
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TypedDict

import cv2
import numpy as np
import rapidocr
from PIL import Image, ImageOps

PR_SET_PDEATHSIG = 1
# Of a whole strip or page: what the detector works best on, and what bounds its memory.
STRIP_PIXELS = 2_000
MOST_STRIPS = 8
# Smaller pictures are enlarged to this before text is looked for; RapidOCR's own 736 found no more and took twice the time.
LEAST_SIDE = 480
# Strips are cut where a picture is emptiest, this far around the even cut.
CUT_REACH = 200
# A neighbour of the very same colour: screenshots and drawings are made of such pixels, photographs have hardly any.
FLAT_SHARE, GRAINY_SHARE = 0.6, 0.15
COLOUR_SIDE = 96
LEAST_COLOUR_SHARE = 0.06

# What cannot be sure after all: below these a line is more likely noise than text.
LEAST_SCORE, LEAST_LONELY_SCORE = 0.6, 0.85


class Settings(TypedDict):
    """What the parent decides. most_pixels: width times height of a picture it will open; memory_bytes: of data, code not counted."""

    parent_pid: int
    key: str
    threads: int
    nice: int
    memory_bytes: int
    most_pixels: int


class Line(TypedDict):
    """A line of text. score: 0 to 1. corners: clockwise from where the text begins above, x and y in pixels of the picture."""

    text: str
    score: float
    corners: list[tuple[float, float]]


class Code(TypedDict):
    """kind: "qr" or the kind of bar code, like "EAN_13"."""

    kind: str
    text: str


class Reading(TypedDict):
    """colours: English name and share of the picture, most first. brightness: 0 to 1, mean. is_flat: whether it is made of even areas,
    as screenshots and drawings are (True), or of grain, as photographs are (False); None where that is not clear."""

    width: int
    height: int
    lines: list[Line]
    codes: list[Code]
    colours: list[tuple[str, float]]
    brightness: float
    is_flat: bool | None


class Unreadable(Exception):
    """The bytes are no picture that can be opened; the message is for people."""


class Reader:
    """Reads pictures, one at a time."""

    def __init__(self, settings: Settings) -> None:
        self._most_pixels = Image.MAX_IMAGE_PIXELS = settings["most_pixels"]
        cv2.setNumThreads(settings["threads"])
        self._engine = rapidocr.RapidOCR(params=_engine_settings(settings["threads"]))
        self._qr = cv2.QRCodeDetector()
        self._bars = cv2.barcode.BarcodeDetector()

    def read(self, data: bytes) -> Reading:
        """Raises Unreadable."""
        picture, width, height = self._opened(data)
        pixels = np.asarray(picture)
        scale = width / picture.width
        lines = [_scaled(line, scale) for line in self._lines(pixels)]
        return Reading(
            width=width,
            height=height,
            lines=lines,
            codes=self._codes(pixels),
            colours=colours(pixels),
            brightness=round(float(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).mean()) / 255, 3),
            is_flat=is_flat(pixels),
        )

    def _opened(self, data: bytes) -> tuple[Image.Image, int, int]:
        """Upright, in RGB, made smaller where it is huge; and its true width and height."""
        try:
            with warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning), Image.open(io.BytesIO(data)) as file:
                turned = file.getexif().get(0x0112, 1) >= 5
                width, height = (file.height, file.width) if turned else file.size
                target = _fitting(*file.size)
                file.draft("RGB", target)  # a JPEG is decoded smaller from the start
                file.thumbnail(target, Image.Resampling.LANCZOS)
                return _opaque(ImageOps.exif_transpose(file)), width, height
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise Unreadable(f"The picture has more than {self._most_pixels} pixels.") from error
        except (OSError, ValueError, SyntaxError) as error:
            raise Unreadable("The picture cannot be opened.") from error

    def _lines(self, pixels: np.ndarray) -> list[Line]:
        height, width = pixels.shape[:2]
        if max(height, width) <= STRIP_PIXELS:
            return self._strip(pixels, 0, 0)
        is_tall = height > width
        found: list[Line] = []
        for start, end in cuts(pixels if is_tall else pixels.transpose(1, 0, 2)):
            strip = pixels[start:end] if is_tall else pixels[:, start:end]
            found += self._strip(strip, 0 if is_tall else start, start if is_tall else 0)
        return found

    def _strip(self, pixels: np.ndarray, left: int, top: int) -> list[Line]:
        result = self._engine(cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
        texts, scores, boxes = (getattr(result, name, None) for name in ("txts", "scores", "boxes"))
        if texts is None or scores is None or boxes is None:
            return []  # what it gives then has other fields, or none
        return [
            Line(text=text, score=round(float(score), 3), corners=[(float(x) + left, float(y) + top) for x, y in box])
            for text, score, box in zip(texts, scores, boxes, strict=True)
            if score >= (LEAST_SCORE if len(text) > 1 else LEAST_LONELY_SCORE)
        ]

    def _codes(self, pixels: np.ndarray) -> list[Code]:
        """Those that could be decoded; one that is only suspected is none."""
        grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
        found: dict[tuple[str, str], None] = {}
        # OpenCV finds no bar code that is drawn too sharply, as on a screen.
        for view in (grey, cv2.GaussianBlur(grey, (0, 0), 1.0)):
            try:
                _, texts, _, _ = self._qr.detectAndDecodeMulti(view)
                found |= {("qr", text): None for text in texts if text}
                _, texts, kinds, _ = self._bars.detectAndDecodeWithType(view)
                found |= {(kind, text): None for text, kind in zip(texts or (), kinds or (), strict=True) if text}
            except (cv2.error, UnicodeDecodeError):  # it throws on some patterns that look like codes, and on codes that hold bytes
                continue
        return [Code(kind=kind, text=text) for kind, text in found]


def cuts(pixels: np.ndarray) -> list[tuple[int, int]]:
    """Rows from and to of the strips of a tall picture, cut where there is least to see, so that no line is cut in two."""
    height = pixels.shape[0]
    count = min(-(-height // STRIP_PIXELS), MOST_STRIPS)
    busy = np.abs(np.diff(pixels[:, :, 1].astype(np.int16), axis=1)).mean(axis=1)
    edges = [0]
    for number in range(1, count):
        even = number * height // count
        low, high = max(even - CUT_REACH, edges[-1] + 1), min(even + CUT_REACH, height)
        edges.append(low + int(np.argmin(busy[low:high])))
    return list(zip(edges, [*edges[1:], height], strict=True))


def colours(pixels: np.ndarray) -> list[tuple[str, float]]:
    """The colours that make up most of it by their plain names, and their shares."""
    small = cv2.resize(pixels, (COLOUR_SIDE, COLOUR_SIDE), interpolation=cv2.INTER_AREA)
    hue, saturation, value = (plane.astype(np.int16) for plane in cv2.split(cv2.cvtColor(small, cv2.COLOR_RGB2HSV)))
    is_grey = (saturation < 38) | (value < 40)
    names = np.full(hue.shape, "red", dtype="<U8")
    for above, name in (
        (9, "orange"),
        (21, "yellow"),
        (34, "green"),
        (80, "cyan"),
        (98, "blue"),
        (130, "purple"),
        (146, "pink"),
        (170, "red"),
    ):
        names[hue >= above] = name
    names[(hue >= 4) & (hue < 21) & (value < 165)] = "brown"
    names[is_grey] = "grey"
    names[is_grey & (value >= 215)] = "white"
    names[value < 50] = "black"
    found, counts = np.unique(names, return_counts=True)
    shares = sorted(zip((counts / names.size).tolist(), found.tolist(), strict=True), reverse=True)
    return [(name, round(share, 2)) for share, name in shares if share >= LEAST_COLOUR_SHARE][:4]


def is_flat(pixels: np.ndarray) -> bool | None:
    """Whether neighbours mostly have the very same colour; None in between."""
    if pixels.shape[1] < 2:
        return None
    share = float((pixels[:, 1:] == pixels[:, :-1]).all(axis=2).mean())
    return True if share >= FLAT_SHARE else False if share <= GRAINY_SHARE else None


def _fitting(width: int, height: int) -> tuple[int, int]:
    """Its size, at most: what a page may have; a long strip of a picture may have several of them."""
    narrow, wide = sorted((width, height))
    scale = min(1.0, STRIP_PIXELS / wide) if wide <= 2 * narrow else min(1.0, STRIP_PIXELS / narrow, MOST_STRIPS * STRIP_PIXELS / wide)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _opaque(picture: Image.Image) -> Image.Image:
    """In RGB; what can be seen through is laid on white, or on black where what is drawn is light itself."""
    if "A" not in picture.getbands() and "transparency" not in picture.info:
        return picture.convert("RGB")
    drawn = picture.convert("RGBA")
    grey, alpha = np.asarray(drawn.convert("L"), dtype=np.float32), np.asarray(drawn.getchannel("A"), dtype=np.float32)
    is_light = float((grey * alpha).sum()) > 170 * float(alpha.sum())
    ground = Image.new("RGBA", drawn.size, (0, 0, 0, 255) if is_light else (255, 255, 255, 255))
    return Image.alpha_composite(ground, drawn).convert("RGB")


def _scaled(line: Line, scale: float) -> Line:
    corners = [(round(x * scale, 1), round(y * scale, 1)) for x, y in line["corners"]]
    return Line(text=line["text"], score=line["score"], corners=corners)


def _engine_settings(threads: int) -> dict[str, object]:
    """Models by their path in the package: by its own name for them RapidOCR would fetch one that it does not find."""
    models = Path(rapidocr.__file__).parent / "models"
    return {
        "Global.log_level": "critical",
        "Global.max_side_len": STRIP_PIXELS + 2 * CUT_REACH,
        "EngineConfig.onnxruntime.intra_op_num_threads": threads,
        "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        "Det.limit_side_len": LEAST_SIDE,
        "Det.model_path": str(models / "PP-OCRv6_det_small.onnx"),
        "Cls.model_path": str(models / "ch_ppocr_mobile_v2.0_cls_mobile.onnx"),
        "Rec.model_path": str(models / "PP-OCRv6_rec_small.onnx"),
    }


class Server(HTTPServer):
    """One exchange at a time, each on a connection of its own, so that an idle one keeps nobody waiting."""

    def __init__(self, reader: Reader, key: str) -> None:
        super().__init__(("127.0.0.1", 0), Exchange)
        self.reader = reader
        self.expected = f"Bearer {key}".encode()


class Exchange(BaseHTTPRequestHandler):
    """POST / with a picture."""

    timeout = 30  # a client that sends half a picture keeps the next one waiting no longer

    def do_POST(self) -> None:
        server = self.server
        if not isinstance(server, Server):
            raise TypeError("an exchange belongs to a Server")
        if not hmac.compare_digest((self.headers.get("authorization") or "").encode(), server.expected):
            self._answer(401, {"message": "Wrong key."})
            return
        data = self.rfile.read(int(self.headers.get("content-length") or 0))
        try:
            self._answer(200, server.reader.read(data))
        except Unreadable as error:
            self._answer(422, {"message": str(error)})
        except Exception as error:  # noqa: BLE001 - a library's failure on one picture is that picture's answer
            self._failed(error)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is logged of pictures that were read."""

    def _failed(self, error: Exception) -> None:
        print(f"a picture could not be read: {type(error).__name__}", file=sys.stderr, flush=True)
        self._answer(507, {"message": "The picture needs more memory than its reader may have, or cannot be read."})

    def _answer(self, status: int, body: object) -> None:
        data = json.dumps(body, ensure_ascii=False).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write(data)


def main() -> None:
    """Serve until stdin closes."""
    line = sys.stdin.readline()
    if not line:
        return
    settings: Settings = json.loads(line)
    _die_with_parent(settings["parent_pid"])
    if settings["nice"]:
        os.nice(settings["nice"])
    if settings["memory_bytes"]:
        resource.setrlimit(resource.RLIMIT_DATA, (settings["memory_bytes"], settings["memory_bytes"]))
    server = Server(Reader(settings), settings["key"])
    print(json.dumps({"address": f"http://127.0.0.1:{server.server_port}"}), flush=True)
    os.dup2(2, 1)  # whatever a library prints from here on is log; nobody reads our stdout any more
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()
    os._exit(0)


def _die_with_parent(parent_pid: int) -> None:
    """The kernel kills us with the parent even while a picture keeps us from looking at stdin (Linux; elsewhere stdin must do)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(0)


if __name__ == "__main__":
    main()
