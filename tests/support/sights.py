"""This is where tests open the embedded engine on tiny weights that see, and draw pictures for it."""

import io
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
from PIL import Image, ImageDraw

from qwenbox.engines.llamacpp.config import LlamaCppConfig, LlamaParts
from qwenbox.engines.llamacpp.engine import LlamaCpp
from qwenbox.engines.memory import MemoryBudget
from qwenbox.remote import Remote
from qwenbox.terms.chat import ChatRequest, ImagePart, Message, Part, Role, Sampling, TextPart
from support.tiny_vision import TinyVision


def draw(width: int, height: int, colour: str = "navy", form: str = "PNG") -> bytes:
    """A picture file: a disc of `colour` on white, so that every part of it differs."""
    picture = Image.new("RGB", (width, height), "white")
    ImageDraw.Draw(picture).ellipse((width // 8, height // 6, width * 2 // 3, height * 5 // 6), fill=colour)
    written = io.BytesIO()
    picture.save(written, form)
    return written.getvalue()


def picture(width: int, height: int, colour: str = "navy", *, form: str = "PNG", **wishes: int) -> ImagePart:
    """A fetched picture. wishes: min_pixels, max_pixels."""
    return ImagePart(
        url="https://example.com/p",
        data=draw(width, height, colour, form),
        media_type=f"image/{form.lower()}",
        width=width,
        height=height,
        **wishes,
    )


def look(*parts: Part | str, tokens: int = 16, seed: int | None = None, temperature: float = 0.0, **fields: object) -> ChatRequest:
    """A question about pictures; fields: of ChatRequest."""
    content = tuple(TextPart(text=part) if isinstance(part, str) else part for part in parts)
    request = ChatRequest(
        model="m",
        messages=(Message(role=Role.USER, content=content),),
        max_output_tokens=tokens,
        sampling=Sampling(temperature=temperature, seed=seed),
    )
    return msgspec.structs.replace(request, **fields)


@asynccontextmanager
async def open_sight(files: TinyVision, **settings: object) -> AsyncGenerator[LlamaCpp]:
    """The engine on these files; settings: of LlamaCppConfig."""

    async def model() -> Path:
        return files.model

    async def projector() -> Path:
        return files.projector

    config = msgspec.convert(
        {"kind": "llamacpp", "weights": "tiny-vl", "kv_tokens": 16_384, "context_tokens": 16_384} | settings, LlamaCppConfig
    )
    async with Remote() as remote:
        parts = LlamaParts(
            remote=remote,
            memory=MemoryBudget(8_000_000_000),
            locate=model,
            is_here=files.model.is_file,
            title="Tiny VL",
            locate_projector=projector,
        )
        async with LlamaCpp(config, parts) as engine:
            yield engine
