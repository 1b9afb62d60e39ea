"""This is where a visitor sets how a model is to answer; what is left empty is the model's own business."""

from collections.abc import Callable, Iterable

from nicegui import ui

from qwenbox.client.catalog import Model
from qwenbox.console.pages.playground import request
from qwenbox.console.pages.playground.request import Choice, Format, Wishes, Wrong
from qwenbox.console.view import View

# name: (label, least, most, step)
_NUMBERS: dict[str, tuple[str, float, float, float]] = {
    "temperature": ("Temperature", 0, 2, 0.1),
    "top_p": ("Top P", 0, 1, 0.05),
    "top_k": ("Top K", 0, 1_000, 1),
    "seed": ("Seed", 0, 2**31 - 1, 1),
    "max_tokens": ("Longest answer (tokens)", 1, 1_000_000, 1),
    "presence_penalty": ("Presence penalty", -2, 2, 0.1),
    "repetition_penalty": ("Repetition penalty", 0, 2, 0.05),
}
_THINKING = {"": "As the model does", "on": "On", "off": "Off"}
_FORMATS: dict[Format, str] = {"text": "Text", "json_object": "JSON", "json_schema": "JSON by a schema"}
_CHOICES: dict[Choice, str] = {"auto": "The model decides", "required": "It must call one", "none": "It must not"}

SCHEMA_EXAMPLE = """{
  "type": "object",
  "properties": {
    "city": {"type": "string"},
    "people": {"type": "integer"}
  },
  "required": ["city", "people"]
}"""
TOOLS_EXAMPLE = """[
  {
    "name": "get_weather",
    "description": "The weather in a city, now.",
    "parameters": {
      "type": "object",
      "properties": {"city": {"type": "string"}},
      "required": ["city"]
    }
  }
]"""


class Parameters:
    """The panel beside the conversation. changed: to be called when a request would now be another one."""

    def __init__(self, view: View, changed: Callable[[], object]) -> None:
        self._view = view
        self._changed = changed
        t = view.t
        self.system = (
            ui.textarea(t("System prompt"), on_change=changed).props("outlined dense autogrow data-testid=system-prompt").classes("system")
        )
        with ui.element("div").classes("pair"):
            self._numbers = {name: self._number(name) for name in _NUMBERS}
        self._stop = ui.input(t("Stop at"), placeholder=t("texts, by commas; \\n is a new line"), on_change=changed)
        self._stop.props("outlined dense data-testid=param-stop")
        with ui.element("div").classes("stack") as self._thinking_box:
            thinking = {key: t(name) for key, name in _THINKING.items()}
            self._thinking = ui.select(thinking, value="", label=t("Thinking"), on_change=changed).props("outlined dense")
            self._thinking.props("data-testid=param-thinking")
            self._budget = ui.number(t("Thinking budget (tokens)"), min=1, step=1, on_change=changed).props("outlined dense")
            self._budget.props("data-testid=param-thinking-budget").bind_visibility_from(
                self._thinking, "value", lambda value: value != "off"
            )
        self._build_format()
        self._build_tools()

    def fit(self, models: Iterable[Model]) -> None:
        """Show what one of these can make use of."""
        able = {capability for model in models for capability in model.capabilities}
        self._thinking_box.set_visibility("thinking" in able)
        self._format_box.set_visibility("json" in able)
        self._tools_box.set_visibility("tools" in able)

    def wishes(self, model: Model) -> Wishes:
        """What is set, as far as that model can do it."""
        can = model.capabilities
        thinks = "thinking" in can
        return Wishes(
            model=model.name,
            system=self.system.value or "",
            stop=_texts(self._stop.value or ""),
            enable_thinking={"on": True, "off": False}.get(self._thinking.value or "") if thinks else None,
            thinking_budget=_whole(self._budget.value) if thinks else None,
            format=self.format if "json" in can else "text",
            schema=self._schema.value or "",
            tools=self._tools.value or "" if "tools" in can else "",
            tool_choice=self._choice.value or "auto",
            temperature=_tidy(self._numbers["temperature"].value),
            top_p=_tidy(self._numbers["top_p"].value),
            top_k=_whole(self._numbers["top_k"].value),
            seed=_whole(self._numbers["seed"].value),
            max_tokens=_whole(self._numbers["max_tokens"].value),
            presence_penalty=_tidy(self._numbers["presence_penalty"].value),
            repetition_penalty=_tidy(self._numbers["repetition_penalty"].value),
        )

    @property
    def format(self) -> Format:
        return self._format.value or "text"

    def _number(self, name: str) -> ui.number:
        label, least, most, step = _NUMBERS[name]
        shown = ui.number(self._view.t(label), min=least, max=most, step=step, on_change=self._changed)
        return shown.props(f"outlined dense data-testid=param-{name}")

    def _build_format(self) -> None:
        t = self._view.t
        with ui.element("div").classes("stack") as self._format_box:
            formats = {key: t(name) for key, name in _FORMATS.items()}
            self._format = ui.select(formats, value="text", label=t("Answer's form"), on_change=self._changed)
            self._format.props("outlined dense data-testid=param-format")
            with ui.element("div").classes("stack tight-stack") as editor:
                self._schema = self._editor(t("JSON schema"), "schema-editor", SCHEMA_EXAMPLE, request.schema)
            editor.bind_visibility_from(self._format, "value", lambda value: value == "json_schema")

    def _build_tools(self) -> None:
        t = self._view.t
        with ui.element("div").classes("stack") as self._tools_box, ui.expansion(t("Tools")).classes("plain-expansion") as shut:
            shut.props("data-testid=tools dense")
            with ui.element("div").classes("stack tight-stack"):
                self._tools = self._editor(t("Tools as JSON"), "tools-editor", "", request.tools)
                choices = {key: t(name) for key, name in _CHOICES.items()}
                self._choice = ui.select(choices, value="auto", label=t("Call of a tool"), on_change=self._changed)
                self._choice.props("outlined dense data-testid=param-tool-choice")
                ui.button(t("An example"), on_click=lambda: self._tools.set_value(TOOLS_EXAMPLE)).props(
                    "flat dense data-testid=tools-example"
                )

    def _editor(self, label: str, mark: str, value: str, check: Callable[[str], object]) -> ui.textarea:
        """A field for JSON that says in place what is wrong with it."""
        t = self._view.t

        def look() -> None:
            told = ""
            if (area.value or "").strip():
                try:
                    check(area.value or "")
                except Wrong as wrong:
                    told = t(wrong.told, **wrong.values)
            problem.set_text(told)
            problem.set_visibility(bool(told))
            self._changed()

        area = ui.textarea(label, value=value, on_change=look).props('outlined dense autogrow spellcheck="false"').classes("code-editor")
        area.props(f"data-testid={mark}")
        problem = ui.label().classes("bad small break").props(f'role="status" data-testid={mark}-problem')
        problem.set_visibility(False)
        return area


def _tidy(value: float | None) -> float | None:
    """1 rather than 1.0, as people write it."""
    return int(value) if value is not None and value == int(value) else value


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _texts(line: str) -> tuple[str, ...]:
    r"""By commas; `\n` and `\t` as people write them."""
    return tuple(text.replace("\\n", "\n").replace("\\t", "\t") for text in line.split(",") if text)
