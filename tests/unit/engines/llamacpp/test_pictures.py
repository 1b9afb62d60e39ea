"""Pictures on their way into a prompt: upright, opaque, exactly as large as they were counted, whatever their file."""

import base64
import io
from pathlib import Path

import pytest
from PIL import Image

from qwenbox.engines import gguf
from qwenbox.engines.gguf import Projector
from qwenbox.engines.llamacpp import pictures
from qwenbox.engines.prompt import PromptTemplate
from qwenbox.engines.tokenizer import Tokenizer
from qwenbox.terms.chat import ChatRequest, ImagePart, Message, Role, TextPart, VideoPart
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.pixels import OLDER, QWEN3, Size
from support.sights import look, picture
from support.tiny_gguf import TINY, write_gguf
from support.tiny_vision import TEMPLATE, TOKENS, build

ROTATED = 6  # EXIF: turn by 90 degrees clockwise
ORIENTATION = 0x0112


def projector(kind: str = "qwen2vl_merger", unit: int = 28) -> Projector:
    return Projector(path=Path("mmproj.gguf"), size_bytes=1, kind=kind, unit=unit)


def painted(part: ImagePart, size: Size) -> Image.Image:
    (file,) = pictures.painted((part,), (size,))
    return Image.open(io.BytesIO(base64.b64decode(file)))


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> ImagePart:
    file = io.BytesIO()
    image.save(file, form, **options)
    return ImagePart(url="x", data=file.getvalue(), media_type=f"image/{form.lower()}", width=image.width, height=image.height)


def test_picture_keeps_its_pixels_when_its_size_fits() -> None:
    part = picture(280, 196)

    seen = painted(part, Size(280, 196))

    assert ((280, 196), "RGB") == (seen.size, seen.mode)
    assert Image.open(io.BytesIO(part.data)).convert("RGB").tobytes() == seen.tobytes()


def test_picture_taken_sideways_is_turned_and_so_is_its_size() -> None:
    image = Image.new("RGB", (300, 200), "white")
    image.paste("navy", (0, 0, 150, 200))
    exif = Image.Exif()
    exif[ORIENTATION] = ROTATED

    seen = painted(encoded(image, "JPEG", exif=exif, quality=95), Size(308, 196))

    assert (196, 308) == seen.size
    # The left half is on top now.
    assert seen.getpixel((98, 20))[2] > seen.getpixel((98, 20))[0] + 60
    assert min(seen.getpixel((98, 290))) > 240


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_see_through_is_white(mode: str) -> None:
    image = Image.new("RGBA", (56, 56), (0, 0, 0, 0)).convert(mode)
    part = encoded(image, **({"transparency": 0} if mode == "P" else {}))

    assert (255, 255, 255) == painted(part, Size(56, 56)).getpixel((28, 28))


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n" + b"\0" * 64, b"<svg/>"])
def test_file_that_cannot_be_decoded_is_the_callers_error(data: bytes) -> None:
    part = ImagePart(url="x", data=data, media_type="image/png", width=56, height=56)
    with pytest.raises(ApiError) as raised:
        pictures.painted((part,), (Size(56, 56),))

    assert ErrorKind.INVALID_REQUEST == raised.value.kind


@pytest.mark.parametrize(
    ("unit", "kind", "rule"), [(28, "qwen2vl_merger", OLDER), (28, "qwen2.5vl_merger", OLDER), (32, "qwen3vl_merger", QWEN3)]
)
def test_projector_tells_its_family(unit: int, kind: str, rule: object) -> None:
    assert rule == pictures.sight(projector(kind, unit), rule.most).rule


@pytest.mark.parametrize(("unit", "kind"), [(28, "gemma3"), (40, "qwen2vl_merger")])
def test_projector_of_an_unknown_family_is_refused(unit: int, kind: str) -> None:
    with pytest.raises(ApiError) as raised:
        pictures.sight(projector(kind, unit), 2_000_000)

    assert ErrorKind.ENGINE_FAILED == raised.value.kind


def test_owners_limit_holds_for_usual_and_most() -> None:
    rule = pictures.sight(projector(unit=32, kind="qwen3vl_merger"), 100_000).rule

    assert (100_000, 100_000) == (rule.usual, rule.most)


def test_projector_file_says_what_it_is(tmp_path: Path) -> None:
    files = build(tmp_path)

    assert ("qwen2vl_merger", 28, files.projector.stat().st_size) == (
        (found := gguf.read_projector(files.projector)).kind,
        found.unit,
        found.size_bytes,
    )


@pytest.mark.parametrize("content", [b"", b"GGUF", b"not a gguf file at all, but long enough to be looked into"])
def test_projector_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.gguf").write_bytes(content)
    for path in (tmp_path / "x.gguf", tmp_path / "gone.gguf", write_gguf(tmp_path / "text.gguf", TINY)):
        with pytest.raises(ApiError, match="cannot be used"):
            gguf.read_projector(path)


@pytest.fixture(name="tokenizer")
def _tokenizer(tmp_path: Path) -> Tokenizer:
    return Tokenizer(gguf.read(build(tmp_path).model))


def test_prompt_has_a_place_for_each_picture_and_frame(tokenizer: Tokenizer) -> None:
    film = VideoPart(frames=(picture(56, 56), picture(56, 56)))
    sight = pictures.sight(projector(), 1_000_000)

    prompt = pictures.read(look("hello", picture(280, 280), film, "world"), PromptTemplate(TEMPLATE), tokenizer, sight)

    assert (4, 3, 102 + 6 + 6) == (len(prompt.texts), len(prompt.sizes), prompt.picture_tokens)
    assert ("<|im_start|>user\nhello", "", "") == prompt.texts[:3]
    assert prompt.picture_tokens + sum(len(tokenizer.encode(text)) for text in prompt.texts) == prompt.input_tokens


def test_forged_names_of_control_tokens_are_none(tokenizer: Tokenizer) -> None:
    forged = "".join(token for token in TOKENS if token.startswith("<|"))
    sight = pictures.sight(projector(), 1_000_000)

    plain = pictures.read(look("x", picture(56, 56)), PromptTemplate(TEMPLATE), tokenizer, sight)
    prompt = pictures.read(look(forged, picture(56, 56)), PromptTemplate(TEMPLATE), tokenizer, sight)

    control = set(tokenizer.control.values())
    assert [token for token in plain.ids if token in control] == [token for token in prompt.ids if token in control]


@pytest.mark.parametrize(
    ("template", "sees", "kind"),
    [("{{ messages[0].content }}", True, ErrorKind.INVALID_REQUEST), (TEMPLATE, False, ErrorKind.INVALID_REQUEST)],
)
def test_weights_that_cannot_show_pictures_say_so(tokenizer: Tokenizer, template: str, sees: bool, kind: ErrorKind) -> None:
    sight = pictures.sight(projector(), 1_000_000) if sees else None
    with pytest.raises(ApiError) as raised:
        pictures.read(look("hello", picture(56, 56)), PromptTemplate(template), tokenizer, sight)

    assert kind == raised.value.kind


def test_picture_that_was_not_fetched_is_the_boxes_mistake(tokenizer: Tokenizer) -> None:
    sight = pictures.sight(projector(), 1_000_000)
    with pytest.raises(ApiError) as raised:
        pictures.read(look(ImagePart(url="https://example.com/1.png")), PromptTemplate(TEMPLATE), tokenizer, sight)

    assert ErrorKind.ENGINE_FAILED == raised.value.kind


def test_picture_in_a_partial_answer_is_refused(tokenizer: Tokenizer) -> None:
    beginning = Message(role=Role.ASSISTANT, content=(TextPart(text="It is"), picture(56, 56)), is_partial=True)
    request = ChatRequest(model="m", messages=(Message(role=Role.USER, content=(TextPart(text="hello"),)), beginning))
    with pytest.raises(ApiError, match="A partial message cannot hold an image"):
        pictures.read(request, PromptTemplate(TEMPLATE), tokenizer, pictures.sight(projector(), 1_000_000))
