"""This is where picture files are made for tests: good ones of every format, and such that are made to break what decodes them."""

import io
import struct
import zlib

from PIL import Image

PNG = b"\x89PNG\r\n\x1a\n"


def drawn(form: str = "PNG", width: int = 64, height: int = 48, colour: str = "navy") -> bytes:
    written = io.BytesIO()
    picture = Image.new("RGB", (width, height), colour)
    picture.paste(Image.linear_gradient("L").resize((width, max(1, height // 2))), (0, 0))
    picture.save(written, form)
    return written.getvalue()


def animated(form: str = "GIF", frames: int = 3) -> bytes:
    written = io.BytesIO()
    pictures = [Image.new("RGB", (40, 30), (80 * number, 10, 10)) for number in range(frames)]
    pictures[0].save(written, form, save_all=True, append_images=pictures[1:])
    return written.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_of(width: int, height: int, *chunks: bytes) -> bytes:
    """A PNG whose head claims a size."""
    return PNG + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) + b"".join(chunks) + chunk(b"IEND", b"")


def zeros(mib: int) -> bytes:
    """A few kilobytes that unpack to as many MiB."""
    packer = zlib.compressobj(9)
    return b"".join([*(packer.compress(bytes(2**20)) for _ in range(mib)), packer.flush()])


def bombs() -> dict[str, bytes]:
    gif = b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0, 0, 0)
    return {
        "png that claims 50,000 pixels a side": png_of(50_000, 50_000, chunk(b"IDAT", zeros(64))),
        "png that claims two billion pixels a side": png_of(2**31 - 1, 2**31 - 1, chunk(b"IDAT", zeros(1))),
        "png with a text that unpacks to 64 MiB": png_of(64, 64, chunk(b"zTXt", b"a\0\0" + zeros(64)), chunk(b"IDAT", zeros(1))),
        "png with a colour profile that unpacks to 64 MiB": png_of(64, 64, chunk(b"iCCP", b"a\0\0" + zeros(64)), chunk(b"IDAT", b"")),
        "gif that claims 65,535 pixels a side": gif + b",\0\0\0\0\xff\xff\xff\xff\0\x02\x02L\x01\0;",
        "bmp that claims two billion pixels a side": b"BM"
        + struct.pack("<IIIIiiHHIIiiII", 0, 0, 54, 40, 2**30, 2**30, 1, 24, 0, 0, 0, 0, 0, 0),
        "zip": b"PK\x03\x04" + zeros(16),
        "gzip": b"\x1f\x8b\x08\0" + zeros(16),
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="http://127.0.0.1/"/></svg>',
        "html": b"<!DOCTYPE html><title>a</title>",
        "pdf": b"%PDF-1.7\n",
        "heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n",
        "nothing": b"",
        "half a png": drawn("PNG", 300, 300)[:200],
        "half a jpeg": drawn("JPEG", 300, 300)[:300],
        "png without pixels": png_of(64, 64),
        "one pixel wide": drawn("PNG", 9, 64),
        "a thread": drawn("PNG", 10, 2_001),
    }
