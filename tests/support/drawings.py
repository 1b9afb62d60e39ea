"""This is where tests draw their pictures: twenty with text, Chinese and English, on screens and as if photographed, and some without any.

Every one is made anew from fixed numbers, so that a run tells the same as the one before it.
"""

import io
import unicodedata
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pylopdf_fonts_zh_cn
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from qwenbox.terms.chat import ImagePart

FONTS = Path(pylopdf_fonts_zh_cn.__file__).parent
INK = (28, 30, 36)
Colour = str | tuple[int, int, int]


@dataclass(frozen=True)
class Drawing:
    """texts: what an answer must name to be right."""

    name: str
    picture: Image.Image
    texts: tuple[str, ...]
    is_photo: bool
    is_chinese: bool


def png(picture: Image.Image) -> bytes:
    data = io.BytesIO()
    picture.save(data, "PNG")
    return data.getvalue()


def jpeg(picture: Image.Image, quality: int = 85) -> bytes:
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=quality)
    return data.getvalue()


def part(data: bytes) -> ImagePart:
    """As the gateway's media step leaves it."""
    with Image.open(io.BytesIO(data)) as picture:
        kind = f"image/{(picture.format or '').lower()}"
        return ImagePart(url="https://example.com/picture", data=data, media_type=kind, width=picture.width, height=picture.height)


def folded(text: str) -> str:
    """For comparing: full-width and half-width are one, spaces and case don't matter."""
    return "".join(unicodedata.normalize("NFKC", text).lower().split())


def names(answer: str, drawing: Drawing) -> bool:
    """Whether the answer holds every text of the picture."""
    said = folded(answer)
    return all(folded(text) in said for text in drawing.texts)


@cache
def font(size: int, *, is_serif: bool = False) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(FONTS / ("NotoSerifSC-Regular.otf" if is_serif else "NotoSansSC-Regular.otf"), size)


def page(width: int, height: int, colour: Colour = "white") -> tuple[Image.Image, ImageDraw.ImageDraw]:
    picture = Image.new("RGB", (width, height), colour)
    return picture, ImageDraw.Draw(picture)


def twenty() -> list[Drawing]:
    """Ten screens, ten photographs; half of each Chinese."""
    return [
        _screen(
            "dialog zh", _dialog("确认删除文件", "此操作不可撤销", "取消", "确定"), ("确认删除文件", "此操作不可撤销"), is_chinese=True
        ),
        _screen(
            "table zh",
            _table((("商品", "数量", "金额"), ("苹果", "3", "18.60"), ("牛奶", "2", "25.80"))),
            ("苹果", "25.80"),
            is_chinese=True,
        ),
        _screen("chat zh", _chat("明天上午十点开会", "好的，会议室在三楼"), ("明天上午十点开会", "会议室在三楼"), is_chinese=True),
        _screen("settings zh", _settings("通知设置", "允许推送消息", "夜间模式"), ("通知设置", "夜间模式"), is_chinese=True),
        _screen("notice zh", _notice("停水通知", "本周六八点至十二点停水检修"), ("停水通知", "停水检修"), is_chinese=True),
        _screen(
            "dialog en",
            _dialog("Delete this file?", "This cannot be undone.", "Cancel", "Delete"),
            ("Delete this file", "cannot be undone"),
        ),
        _screen("table en", _table((("Item", "Qty", "Price"), ("Coffee", "4", "12.40"), ("Bagel", "1", "3.75"))), ("Coffee", "3.75")),
        _screen("code en", _code("def greet(name):", '    return "Hello, " + name'), ("def greet", "return")),
        _screen("settings en", _settings("Notifications", "Allow messages", "Dark mode"), ("Notifications", "Dark mode")),
        _screen("error en", _notice("Error 404", "The page was not found"), ("Error 404", "not found")),
        _photo("sign zh", _sign("小心台阶", (30, 90, 160), "white"), ("小心台阶",), turned=4, seed=1, is_chinese=True),
        _photo("menu zh", _menu("今日特价", "红烧牛肉面 28元"), ("今日特价", "红烧牛肉面"), turned=-3, seed=2, is_chinese=True),
        _photo("door zh", _sign("图书馆入口", (240, 236, 225), (120, 20, 20)), ("图书馆入口",), lean=0.10, seed=3, is_chinese=True),
        _photo("label zh", _menu("生产日期", "2026年11月23日"), ("生产日期", "2026"), shade=0.6, seed=4, is_chinese=True),
        _photo(
            "poster zh",
            _sign("音乐会 周五晚七点", (70, 20, 90), (255, 220, 90)),
            ("音乐会", "周五晚七点"),
            turned=6,
            seed=5,
            is_chinese=True,
        ),
        _photo("sign en", _sign("EMERGENCY EXIT", (20, 120, 60), "white"), ("EMERGENCY EXIT",), turned=-5, seed=6),
        _photo("menu en", _menu("Lunch special", "Tomato soup 6.50"), ("Lunch special", "Tomato soup"), lean=-0.08, seed=7),
        _photo("door en", _sign("Library open 9 to 5", (245, 240, 228), (40, 40, 90)), ("Library open",), shade=0.55, seed=8),
        _photo("parcel en", _menu("FRAGILE", "Handle with care"), ("FRAGILE", "Handle with care"), turned=8, seed=9),
        _photo("platform en", _sign("Platform 12", (15, 20, 60), (250, 250, 120)), ("Platform 12",), lean=0.12, seed=10),
    ]


def wordless() -> list[tuple[str, Image.Image]]:
    """Pictures without any text: a landscape, a face of coloured areas, a plain area."""
    view, draw = page(480, 320, (120, 170, 230))
    draw.rectangle((0, 210, 480, 320), fill=(60, 140, 60))
    draw.ellipse((360, 30, 430, 100), fill=(250, 220, 80))
    shapes, draw = page(360, 300, "white")
    draw.ellipse((40, 40, 180, 180), fill=(200, 30, 40))
    draw.polygon([(220, 240), (330, 240), (275, 120)], fill=(30, 60, 180))
    return [("landscape", _grain(view, 11)), ("shapes", shapes), ("plain", page(320, 240, (30, 80, 200))[0])]


def _screen(name: str, picture: Image.Image, texts: tuple[str, ...], *, is_chinese: bool = False) -> Drawing:
    return Drawing(name, picture, texts, is_photo=False, is_chinese=is_chinese)


def _photo(
    name: str,
    picture: Image.Image,
    texts: tuple[str, ...],
    *,
    seed: int,
    turned: float = 0.0,
    lean: float = 0.0,
    shade: float = 1.0,
    is_chinese: bool = False,
) -> Drawing:
    """As if taken by hand. turned: degrees. lean: how much the far side is smaller. shade: light on the darker side."""
    width, height = picture.size
    if turned:
        picture = picture.rotate(turned, Image.Resampling.BICUBIC, expand=True, fillcolor=(96, 92, 88))
        width, height = picture.size
    if lean:
        cut = abs(lean) * height
        corners = (0, -cut, 0, height + cut, width, height, width, 0) if lean > 0 else (0, 0, 0, height, width, height + cut, width, -cut)
        picture = picture.transform((width, height), Image.Transform.QUAD, corners, Image.Resampling.BICUBIC, fillcolor=(96, 92, 88))
    if shade < 1.0:
        light = np.linspace(1.0, shade, width)[None, :, None]
        picture = Image.fromarray((np.asarray(picture) * light).astype(np.uint8))
    picture = _grain(picture.filter(ImageFilter.GaussianBlur(0.7)), seed)
    with Image.open(io.BytesIO(jpeg(picture, 70))) as kept:
        return Drawing(name, kept.convert("RGB"), texts, is_photo=True, is_chinese=is_chinese)


def _grain(picture: Image.Image, seed: int) -> Image.Image:
    noise = np.random.default_rng(seed).normal(0, 7, (picture.height, picture.width, 3))
    return Image.fromarray((np.asarray(picture).astype(float) + noise).clip(0, 255).astype(np.uint8))


def _dialog(title: str, text: str, no: str, yes: str) -> Image.Image:
    picture, draw = page(480, 240, (110, 115, 125))
    draw.rounded_rectangle((30, 25, 450, 215), 14, fill="white")
    draw.text((55, 45), title, INK, font(28))
    draw.text((55, 95), text, (95, 99, 110), font(20))
    draw.text((280, 165), no, (60, 110, 220), font(20))
    draw.rounded_rectangle((350, 158, 430, 198), 8, fill=(60, 110, 220))
    draw.text((362, 165), yes, "white", font(20))
    return picture


def _table(rows: tuple[tuple[str, ...], ...]) -> Image.Image:
    picture, draw = page(480, 60 + 50 * len(rows))
    for at, row in enumerate(rows):
        for column, text in enumerate(row):
            draw.text((30 + 160 * column, 30 + 50 * at), text, INK, font(24))
        draw.line((20, 70 + 50 * at, 460, 70 + 50 * at), (205, 208, 214), 1)
    return picture


def _chat(first: str, second: str) -> Image.Image:
    picture, draw = page(480, 220, (236, 238, 241))
    draw.rounded_rectangle((20, 25, 290, 85), 12, fill="white")
    draw.text((35, 38), first, INK, font(22))
    draw.rounded_rectangle((190, 120, 460, 180), 12, fill=(150, 226, 110))
    draw.text((205, 133), second, INK, font(22))
    return picture


def _settings(title: str, *rows: str) -> Image.Image:
    picture, draw = page(420, 100 + 70 * len(rows), (246, 247, 249))
    draw.text((25, 22), title, INK, font(30))
    for at, row in enumerate(rows):
        top = 85 + 70 * at
        draw.rectangle((0, top, 420, top + 58), fill="white")
        draw.text((25, top + 13), row, INK, font(22))
        draw.rounded_rectangle((340, top + 15, 395, top + 43), 14, fill=(52, 199, 89))
    return picture


def _notice(title: str, text: str) -> Image.Image:
    picture, draw = page(480, 200)
    draw.text((240, 60), title, (190, 30, 40), font(38), anchor="mm")
    draw.text((240, 130), text, INK, font(24), anchor="mm")
    return picture


def _code(*rows: str) -> Image.Image:
    picture, draw = page(480, 60 + 40 * len(rows), (30, 31, 38))
    for at, row in enumerate(rows):
        draw.text((25, 25 + 40 * at), row, (214, 220, 230), font(22))
    return picture


def _sign(text: str, ground: Colour, ink: Colour) -> Image.Image:
    picture, draw = page(520, 300, (96, 92, 88))
    draw.rounded_rectangle((40, 60, 480, 240), 16, fill=ground)
    size = 56
    while draw.textlength(text, font(size)) > 390:
        size -= 2
    draw.text((260, 150), text, ink, font(size), anchor="mm")
    return picture


def _menu(title: str, text: str) -> Image.Image:
    picture, draw = page(520, 320, (96, 92, 88))
    draw.rectangle((60, 40, 460, 280), fill=(248, 243, 230))
    draw.text((260, 110), title, (140, 40, 30), font(46, is_serif=True), anchor="mm")
    draw.text((260, 200), text, INK, font(32, is_serif=True), anchor="mm")
    return picture
