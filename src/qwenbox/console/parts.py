"""This is where the pages' common parts are made: headings, tables, figures, questions, things to copy."""

from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

import msgspec
from nicegui import context, events, ui
from nicegui.elements.mixins.text_element import TextElement

from qwenbox.console.view import View

E = TypeVar("E", bound=ui.element)

# Which row the focus is in; and that it has left them, unless it is nowhere for a moment or in a dialog, from where it comes back.
_FOCUSED = "(event) => { const row = event.target.closest('tr[data-key]'); if (row) emit(row.dataset.key) }"
_LEFT = """(event) => {
  const to = event.relatedTarget;
  if (to && !event.currentTarget.contains(to) && !to.closest("[role=dialog], .q-dialog")) emit("");
}"""

# One cell: a text, or what makes the cell's content.
Cell = str | Callable[[], object]


def text(tag: str, content: str, classes: str = "") -> TextElement:
    """An element of that tag with a plain text, whatever stands in it."""
    return TextElement(tag=tag, text=content).classes(classes)


def figure(name: str, value: str, hint: str = "", mark: str = "") -> ui.label:
    """A number to look at, with its name above. Returns the value's label, to be changed. mark: for tests."""
    with ui.element("div").classes("figure card").props(f"data-testid={mark}" if mark else ""):
        ui.label(name).classes("figure-name")
        value_label = ui.label(value).classes("figure-value")
        if hint:
            ui.label(hint).classes("muted small")
    return value_label


def table(headers: Sequence[str], rows: Iterable[Sequence[Cell]], *, mark: str = "", numbers: frozenset[int] = frozenset()) -> None:
    """A table that scrolls inside itself where it is wider than the page. numbers: columns set to the right."""
    made = Table(headers, mark=mark, numbers=numbers)
    made.show({str(number): (lambda row=row: row) for number, row in enumerate(rows)})


class Table:
    """A table whose rows come, stay and go by their keys: what somebody reads, points at or has the focus on is not made anew."""

    def __init__(self, headers: Sequence[str], *, mark: str = "", numbers: frozenset[int] = frozenset()) -> None:
        self._numbers = numbers
        self._rows: dict[str, ui.element] = {}
        # The row that the focus was in last, while it is in the table or in what was opened from there.
        self._held = ""
        wrap = named(ui.element("div").classes("table-wrap").props('tabindex="0" role="region"'), headers[0])
        with wrap, ui.element("table").classes("table").props(f"data-testid={mark}" if mark else ""):
            with ui.element("thead"), ui.element("tr"):
                for number, header in enumerate(headers):
                    text("th", header, "number" if number in numbers else "").props('scope="col"')
            self._body = ui.element("tbody")
        wrap.on("focusin", self._hold, js_handler=_FOCUSED)
        wrap.on("focusout", self._hold, js_handler=_LEFT)

    def show(self, rows: Mapping[str, Callable[[], Sequence[Cell]]]) -> None:
        """These rows in this order. What makes a row is asked for new ones only.

        A row that is no longer among them, but has the focus, stays as the last one: whoever works by keyboard is not thrown out.
        """
        is_held = self._held in self._rows and self._held not in rows
        for key in self._rows.keys() - rows.keys() - ({self._held} if is_held else set()):
            self._rows.pop(key).delete()
        held = {self._held: self._rows[self._held]} if is_held else {}
        self._rows = {**{key: self._rows.get(key) or self._row(key, make()) for key, make in rows.items()}, **held}
        wanted = list(self._rows.values())
        if self._body.default_slot.children != wanted:
            for row in wanted:
                row.move(self._body)

    def _row(self, key: str, cells: Sequence[Cell]) -> ui.element:
        with self._body, ui.element("tr") as row:
            row.props["data-key"] = key
            for number, cell in enumerate(cells):
                _cell(cell, "number" if number in self._numbers else "")
        return row

    def _hold(self, event: events.GenericEventArguments) -> None:
        self._held = str(event.args)


def _cell(cell: Cell, classes: str) -> None:
    if isinstance(cell, str):
        text("td", cell, classes)
        return
    with ui.element("td").classes(classes):
        cell()


def empty(view: View, told: str, command: str = "") -> None:
    """What stands where nothing is yet: why, and what to do. command: to copy."""
    with ui.element("div").classes("empty card"):
        ui.label(told)
        if command:
            copyable(view, command)


def copyable(view: View, content: str, *, mark: str = "") -> None:
    """A text in a box, with a button that copies it."""
    with ui.element("div").classes("copyable"):
        text("code", content).props(f"data-testid={mark}" if mark else "")
        copy_button(view, lambda: content)


def copy_button(view: View, content: Callable[[], str], name: str = "") -> ui.button:
    label = name or view.t("Copy")
    button = explained(named(ui.button(icon="content_copy").props("flat round dense size=sm"), label), label)

    def copied() -> None:
        copy(content())
        view.tell(view.t("Copied."))

    return button.on("click", copied)


def copy(content: str) -> None:
    """Into the visitor's clipboard; by a selection where a browser allows nothing else, as on other machines without TLS."""
    told = msgspec.json.encode(content).decode()
    ui.run_javascript(
        f"""(async (text) => {{
          try {{ await navigator.clipboard.writeText(text) }}
          catch {{
            const area = document.createElement("textarea");
            area.value = text; document.body.append(area); area.select(); document.execCommand("copy"); area.remove();
          }}
        }})({told})"""
    )


def offer(field: ui.select, options: dict[str, str], chosen: str | None) -> None:
    """What can be chosen from now on, by its value, and what is."""
    # Its type leaves open what the options are.
    field.set_options(options, value=chosen)  # pyright: ignore[reportUnknownMemberType]


def micros(field: ui.number) -> int | None:
    """An amount as it was typed, in millionths; None where nothing was."""
    return None if field.value is None else round(field.value * 1_000_000)


@contextmanager
def dialog(name: str, *, is_persistent: bool = False, is_wide: bool = False) -> Generator[ui.dialog]:
    """A dialog of that name, to be opened; once closed it is gone for good. is_persistent: only its own buttons close it.

    It belongs to the page: NiceGUI would delete it together with what opened it, such as a row or the dialog before.
    """
    with context.client.content:
        made = named(ui.dialog(), name)
    if is_persistent:
        made.props("persistent")
    made.on("hide", made.delete)
    with made, ui.card().classes("dialog wide" if is_wide else "dialog"):
        yield made


async def ask(view: View, question: str, yes: str, *, is_dangerous: bool = False) -> bool:
    """A question with two answers; closing it is the second."""
    with dialog(question) as opened:
        ui.label(question)
        with ui.element("div").classes("row end"):
            ui.button(view.t("Cancel"), on_click=lambda: opened.submit(False)).props("flat no-caps autofocus")
            color = "negative" if is_dangerous else "primary"
            ui.button(yes, on_click=lambda: opened.submit(True)).props(f"unelevated no-caps color={color} data-testid=confirm")
    return bool(await opened)


def actions(*buttons: tuple[str, str, Callable[[], Awaitable[None] | None]]) -> Callable[[], None]:
    """A table's cell of icon buttons: (icon, what it does, handler)."""

    def build() -> None:
        with ui.element("div").classes("row tight end"):
            for icon, name, run in buttons:
                explained(named(ui.button(icon=icon, on_click=run).props("flat round dense size=sm"), name), name)

    return build


def named(element: E, name: str) -> E:
    """The same element, with a name for those who do not see it.

    Set as a value: what `props` is given it parses, and quotes or line ends of a visitor's text would end it or break the page.
    """
    element.props["aria-label"] = name
    return element


def explained(element: E, told: str) -> E:
    """The same element, with what is told to whoever points at it.

    It lies within: `tooltip` of NiceGUI's looks for its element in the page, and finds none in a tab that is not shown.
    """
    with element:
        ui.tooltip(told)
    return element
