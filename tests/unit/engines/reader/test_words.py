"""Words: the question's language, what was found and nothing else."""

import pytest

from qwenbox.engines.reader import words
from qwenbox.engines.reader.pictures import Code, Line, Reading
from qwenbox.engines.reader.words import CHINESE, ENGLISH, Language


def line(text: str, top: float = 10.0) -> Line:
    return Line(text=text, score=0.99, corners=((10, top), (110, top), (110, top + 20), (10, top + 20)))


EMPTY = Reading(width=640, height=480, colours=(("blue", 0.7), ("white", 0.2)), brightness=0.5)
WRITTEN = Reading(width=640, height=480, lines=(line("发票 2026"),), brightness=0.9, is_flat=True)


@pytest.mark.parametrize(
    ("asked", "reading", "expected"),
    [
        ("这张图片中有什么？", WRITTEN, CHINESE),
        ("What does 发票 mean?", EMPTY, CHINESE),
        ("What is this?", WRITTEN, ENGLISH),
        ("", WRITTEN, CHINESE),
        ("?!", Reading(width=1, height=1, lines=(line("Exit"),)), ENGLISH),
        ("", EMPTY, CHINESE),
    ],
)
def test_language_is_that_of_the_question_else_of_the_text(asked: str, reading: Reading, expected: Language) -> None:
    assert words.language(asked, [reading]) is expected


def test_picture_tells_text_and_facts_in_chinese() -> None:
    told = words.picture(WRITTEN, 2, CHINESE)
    assert told.splitlines() == [
        "【图片2的读取结果】",
        "宽640×高480像素",
        "画面明亮，大片纯色，像截图、文档或图形",
        "识别到的文字（从上到下，“|”分开同一行的各栏）：",
        "发票 2026",
        "【读取结果完】",
    ]


def test_picture_says_that_there_is_no_text_when_there_is_none() -> None:
    told = words.picture(EMPTY, 1, ENGLISH)
    assert told.splitlines() == [
        "[Reading of picture 1]",
        "640 × 480 pixels",
        "main colours: blue 70%, white 20%",
        "No text was found.",
        "[End of the reading]",
    ]


def test_blocks_say_where_they_stand_when_there_are_several() -> None:
    spread = Reading(width=640, height=480, lines=(line("title"), line("foot", 440)))
    assert ["[top left] title", "[bottom left] foot"] == words.picture(spread, 1, ENGLISH).splitlines()[3:5]


def test_codes_are_told_with_their_content() -> None:
    coded = Reading(width=9, height=9, codes=(Code(kind="qr", text="https://a.example"), Code(kind="EAN_13", text="4006381333931")))
    told = words.picture(coded, 1, ENGLISH)
    assert "Content of a QR code: https://a.example" in told
    assert "Bar code (EAN_13): 4006381333931" in told


def test_text_is_cut_when_there_is_too_much_and_says_how_much_is_missing() -> None:
    many = Reading(width=640, height=90_000, lines=tuple(line("x" * 100, 25.0 * number) for number in range(200)))
    told = words.picture(many, 1, ENGLISH)
    assert told.count("x" * 100) == words.MOST_CHARACTERS // 100
    assert "(120 more lines, not listed)" in told


def test_film_says_once_what_stays() -> None:
    told = words.film([(1, EMPTY), (4, EMPTY), (8, WRITTEN)], 8, 1, CHINESE)
    assert [row for row in told.splitlines() if "帧" in row] == ["【视频1的读取结果，共8帧】", "第1至4帧：", "第8帧："]
    assert told.count("没有识别到文字") == 1


@pytest.mark.parametrize(("said", "none"), [(CHINESE, "图片中没有识别到文字"), (ENGLISH, "No text was found in the picture")])
def test_opening_is_honest_when_there_is_nothing_to_read(said: Language, none: str) -> None:
    told = words.opening("这是什么？", [EMPTY], said)
    assert told.startswith(none)
    assert "640" in told and "70%" in told
    assert none not in words.opening("这是什么？", [EMPTY, WRITTEN], said)


def test_opening_is_left_to_the_model_when_only_a_code_was_found() -> None:
    assert words.opening("这是什么？", [Reading(width=9, height=9, codes=(Code(kind="qr", text="hi"),))], ENGLISH) == ""


@pytest.mark.parametrize(
    ("asked", "is_begun"),
    [
        ("", True),
        ("这张图片中有什么？", True),
        ("What does the sign say? Read it.", True),
        ("牛奶多少钱？", False),
        ("把图片内容翻译成英文", False),
        ("How much is the text on it worth?", False),
        ("Write a poem", False),
    ],
)
def test_answer_is_begun_with_the_text_when_all_of_it_is_asked_for(asked: str, is_begun: bool) -> None:
    assert is_begun == bool(words.opening(asked, [WRITTEN], CHINESE))
    assert words.opening(asked, [EMPTY], CHINESE)


@pytest.mark.parametrize("said", [CHINESE, ENGLISH])
def test_rules_speak_only_of_what_is_the_case(said: Language) -> None:
    assert said.without_text in words.rules([EMPTY], said)
    assert said.without_text not in words.rules([WRITTEN], said)
    assert said.with_text not in words.rules([EMPTY], said)
