"""This is where the console finds its words: English stands in the code, Chinese in texts/zh-CN/, one file per page."""

import tomllib
from functools import cache
from importlib import resources
from typing import Literal, TypeAlias

Language: TypeAlias = Literal["en", "zh-CN"]
LANGUAGES: tuple[Language, ...] = ("en", "zh-CN")


class Texts:
    """`t("{count} keys", count=3)` in the language of one visitor. What has no translation is shown in English."""

    def __init__(self, language: Language) -> None:
        self.language: Language = language
        self._known = _known() if language == "zh-CN" else {}

    def __call__(self, english: str, /, **values: object) -> str:
        text = self._known.get(english, english)
        return text.format(**values) if values else text


def wanted(cookie: str, accepted: str) -> Language:
    """A visitor's language: as chosen (cookie), else as the browser asks for (Accept-Language)."""
    if cookie in LANGUAGES:
        return cookie
    return "zh-CN" if accepted.strip().lower().startswith("zh") else "en"


@cache
def _known() -> dict[str, str]:
    found: dict[str, str] = {}
    for file in sorted(resources.files("qwenbox.console").joinpath("texts", "zh-CN").iterdir(), key=lambda file: file.name):
        if file.name.endswith(".toml"):
            found |= tomllib.loads(file.read_text("utf-8"))
    return found
