"""This is where the visitor sees the request as programs, to copy."""

from nicegui import ui

from qwenbox.console import markdown, parts
from qwenbox.console.pages.playground.code import PictureFile, Snippet, file_name, snippets
from qwenbox.console.pages.playground.request import Body, Question, Turn
from qwenbox.console.view import View


def show(view: View, asked: Body, turns: list[Turn]) -> None:
    """asked: the request. turns: it was made of, for the names of its pictures."""
    t = view.t
    files: dict[str, PictureFile] = {}
    for picture in (picture for turn in turns if isinstance(turn, Question) for picture in turn.pictures):
        if picture.url not in files:
            name = file_name(picture.name, [file.name for file in files.values()])
            files[picture.url] = PictureFile(name=name, media_type=picture.media_type)
    shown = snippets(asked, view.base_url, files)
    with parts.dialog(t("This request as a program"), is_wide=True) as dialog:
        parts.text("h2", t("This request as a program"))
        ui.label(t("Each runs as it stands, with your key in DASHSCOPE_API_KEY.")).classes("muted")
        if files:
            names = ", ".join(file.name for file in files.values())
            ui.label(t("Run it where your pictures lie: {names}", names=names)).classes("muted break")
        with ui.tabs().props("dense no-caps align=left").classes("code-tabs") as tabs:
            for snippet in shown:
                ui.tab(snippet.name, label=snippet.title).props(f"data-testid=tab-{snippet.name}")
        with ui.tab_panels(tabs, value=shown[0].name, animated=False).classes("code-panels"):
            for snippet in shown:
                with ui.tab_panel(snippet.name):
                    _panel(view, snippet)
        with ui.element("div").classes("row end"):
            ui.button(t("Close"), on_click=dialog.close).props("flat no-caps")
    dialog.open()


def _panel(view: View, snippet: Snippet) -> None:
    t = view.t
    with ui.element("div").classes("row between"):
        if snippet.install:
            parts.text("code", snippet.install, "muted")
        else:
            ui.space()
        name = t("Copy {what}", what=snippet.title)
        parts.copy_button(view, lambda: snippet.code, name).props(f"data-testid=copy-{snippet.name}")
    with ui.element("div").props(f"data-testid=snippet-{snippet.name}").classes("snippet"):
        ui.html(markdown.code(snippet.code, snippet.language), sanitize=False)
