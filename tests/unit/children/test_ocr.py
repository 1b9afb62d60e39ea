"""What the reading child makes of a picture: every kind of file, huge and long ones, codes, colours; and of what is none."""

import io
from itertools import pairwise

import cv2
import numpy as np
import pytest
from PIL import Image

from qwenbox.children import ocr
from support import drawings


@pytest.fixture(scope="module")
def reader() -> ocr.Reader:
    return ocr.Reader(ocr.Settings(parent_pid=0, key="", threads=2, nice=0, memory_bytes=0, most_pixels=40_000_000))


def written(text: str, width: int = 360, height: int = 200, size: int = 44) -> Image.Image:
    picture, draw = drawings.page(width, height)
    draw.text((width // 12, height // 3), text, "black", drawings.font(size))
    return picture


def text_of(reading: ocr.Reading) -> str:
    return drawings.folded("".join(line["text"] for line in reading["lines"]))


@pytest.mark.parametrize("mode", ["1", "LA", "P", "I;16", "CMYK", "F"])
def test_every_kind_of_pixel_is_read(reader: ocr.Reader, mode: str) -> None:
    grey = written("Modes 123").convert("L")
    picture = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257) if mode == "I;16" else grey.convert(mode)
    data = io.BytesIO()
    picture.save(data, "TIFF" if mode in ("CMYK", "F") else "PNG")
    assert "modes123" == text_of(reader.read(data.getvalue()))


def test_huge_picture_is_made_smaller_and_told_upright_at_its_true_size(reader: ocr.Reader) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera's word that it lies on its side
    data = io.BytesIO()
    written("HUGE 巨幅", 5000, 2600, 700).rotate(90, expand=True).save(data, "JPEG", exif=exif)
    reading = reader.read(data.getvalue())
    assert (5000, 2600, "huge巨幅") == (reading["width"], reading["height"], text_of(reading))
    assert max(x for line in reading["lines"] for x, _ in line["corners"]) > 2_100


def test_long_screen_is_read_from_top_to_bottom(reader: ocr.Reader) -> None:
    picture, draw = drawings.page(240, 2600)
    wanted = [f"第{at + 1}节" for at in range(6)]
    for at, text in enumerate(wanted):
        draw.text((20, 20 + 420 * at), text, "black", drawings.font(36))
    assert "".join(wanted) == text_of(reader.read(drawings.png(picture)))


def test_white_on_nothing_is_read(reader: ocr.Reader) -> None:
    picture = Image.new("RGBA", (360, 200), (0, 0, 0, 0))
    drawings.ImageDraw.Draw(picture).text((20, 60), "Clear white", (255, 255, 255, 255), drawings.font(44))
    assert "clearwhite" == text_of(reader.read(drawings.png(picture)))


def test_code_is_read_with_its_content(reader: ocr.Reader) -> None:
    code = cv2.resize(cv2.QRCodeEncoder.create().encode("https://qwen.example/发票"), None, fx=5, fy=5, interpolation=cv2.INTER_NEAREST)
    picture = Image.fromarray(np.pad(code, 30, constant_values=255))
    assert [{"kind": "qr", "text": "https://qwen.example/发票"}] == reader.read(drawings.png(picture))["codes"]


def bars(digits: str) -> Image.Image:
    """An EAN-13 code, three pixels a module. Source: ISO/IEC 15420."""
    left = ["0001101", "0011001", "0010011", "0111101", "0100011", "0110001", "0101111", "0111011", "0110111", "0001011"]
    parities = ["LLLLLL", "LLGLGG", "LLGGLG", "LLGGGL", "LGLLGG", "LGGLLG", "LGGGLL", "LGLGLG", "LGLGGL", "LGGLGL"]
    right = [code.translate(str.maketrans("01", "10")) for code in left]
    parity = parities[int(digits[0])]
    first = "".join(left[int(digit)] if set_ == "L" else right[int(digit)][::-1] for digit, set_ in zip(digits[1:7], parity, strict=True))
    modules = "101" + first + "01010" + "".join(right[int(digit)] for digit in digits[7:]) + "101"
    row = np.array([255 * (module == "0") for module in modules], np.uint8).repeat(3)
    return Image.fromarray(np.pad(np.tile(row, (120, 1)), 40, constant_values=255))


def test_bar_code_is_read_with_its_digits(reader: ocr.Reader) -> None:
    codes = reader.read(drawings.png(bars("4006381333931")))["codes"]
    assert [("EAN_13", "4006381333931")] == [(code["kind"], code["text"]) for code in codes]


@pytest.mark.parametrize(("name", "picture"), drawings.wordless())
def test_nothing_is_read_where_nothing_is_written(reader: ocr.Reader, name: str, picture: Image.Image) -> None:
    reading = reader.read(drawings.png(picture))
    assert ([], []) == (reading["lines"], reading["codes"])
    assert (name == "landscape") == (reading["is_flat"] is False)


@pytest.mark.parametrize("data", [b"", b"no picture", drawings.png(written("cut"))[:60], b"GIF89a" + bytes(20)])
def test_what_is_no_picture_is_refused(reader: ocr.Reader, data: bytes) -> None:
    with pytest.raises(ocr.Unreadable):
        reader.read(data)


def test_picture_of_too_many_pixels_is_refused_before_it_is_unpacked(reader: ocr.Reader) -> None:
    with pytest.raises(ocr.Unreadable, match="pixels"):
        reader.read(drawings.png(Image.new("1", (8_000, 8_000))))


@pytest.mark.parametrize(
    ("colour", "name"),
    [
        ((250, 250, 250), "white"),
        ((8, 8, 8), "black"),
        ((128, 128, 130), "grey"),
        ((210, 25, 30), "red"),
        ((250, 140, 20), "orange"),
        ((245, 220, 40), "yellow"),
        ((40, 160, 60), "green"),
        ((40, 190, 200), "cyan"),
        ((30, 80, 210), "blue"),
        ((120, 40, 170), "purple"),
        ((250, 110, 180), "pink"),
        ((120, 70, 30), "brown"),
    ],
)
def test_colours_have_their_plain_names(colour: tuple[int, int, int], name: str) -> None:
    assert [(name, 1.0)] == ocr.colours(np.asarray(Image.new("RGB", (40, 30), colour)))


def test_cuts_of_a_long_picture_go_through_no_line() -> None:
    pixels = np.full((9_000, 100, 3), 255, np.uint8)
    inked = [row for top in range(0, 9_000, 90) for row in range(top, top + 60)]
    pixels[inked, ::3] = 0
    found = ocr.cuts(pixels)
    assert (0, 9_000) == (found[0][0], found[-1][1])
    assert all(end == start for (_, end), (start, _) in pairwise(found))
    assert not {start for start, _ in found[1:]} & set(inked)
    assert max(end - start for start, end in found) <= ocr.STRIP_PIXELS + 2 * ocr.CUT_REACH
