"""This is where every page gets its frame: navigation, language and theme, who is logged in; and where NiceGUI learns of the pages.

A page is a file in pages/ with one function, `async def build(view: View) -> None`, and a line in pages/registry.py. It asks the box by
`view.admin` (or, for what several open pages want at once, by `view.house.polled`), speaks by `view.t("English")` with its Chinese in
texts/zh-CN/<page>.toml, wraps event handlers in `view.handler`, and refreshes itself by `view.every`. Look and spacing come from
assets/console.css: classes `card`, `row`, `stack`, `muted`, `figure`, `grid-2`, `grid-4`, `table`; no utility classes.
What a model, a key's name or a log says goes through `ui.label` or `console/markdown.py`, never through raw HTML.
"""

from collections.abc import Awaitable, Callable
from copy import copy
from importlib import resources
from pathlib import Path
from urllib.parse import quote, urlsplit

from fastapi import FastAPI, Request
from nicegui import app as nicegui_app
from nicegui import context, ui

from qwenbox import __version__
from qwenbox.client.sign_in import Session
from qwenbox.console import parts
from qwenbox.console.door import SESSION, Application
from qwenbox.console.house import House
from qwenbox.console.pages.batches import files
from qwenbox.console.pages.registry import ROOMS, Room
from qwenbox.console.texts import Texts, wanted
from qwenbox.console.view import View

_THEMES = {"": None, "auto": None, "dark": True, "light": False}
_NEXT_THEME = {None: "dark", True: "light", False: "auto"}
_THEME_ICONS = {None: "brightness_auto", True: "dark_mode", False: "light_mode"}


def application(house: House) -> Application:
    """All pages as one ASGI application, without any guard: the door stands before it."""
    outer = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    assets = resources.files("qwenbox.console").joinpath("assets")
    nicegui_app.add_static_files(f"/assets/{__version__}", Path(str(assets)), max_cache_age=31_536_000)
    files.mount(outer, house)
    for room in ROOMS:
        ui.page(room.path, response_timeout=30.0)(_builder(room, house))
    # Its bar for uploads has no name for those who do not see it; pages say themselves what they wait for.
    nicegui_app.config.quasar_config["loadingBar"]["skipHijack"] = True  # pyright: ignore[reportUnknownMemberType] (any dict)
    # Its type names a parameter of Starlette's without its own.
    ui.run_with(  # pyright: ignore[reportUnknownMemberType]
        outer, title="qwenbox", tailwind=False, reconnect_timeout=30.0, binding_refresh_interval=None, show_welcome_message=False
    )
    return outer


def _builder(room: Room, house: House) -> Callable[[Request], Awaitable[None]]:
    async def build(request: Request) -> None:
        view = _view(house, request)
        # NiceGUI has language and theme per page; ours are the visitor's.
        page = context.client.page = copy(context.client.page)
        page.language, page.dark = ("zh-CN" if view.t.language == "zh-CN" else "en-US"), view.is_dark
        page.title = f"{view.t(room.title)} · qwenbox"
        _frame(view, room, request)
        with ui.element("div").classes("page"):
            parts.text("h1", view.t(room.title), "page-title")
            await room.build(view)

    return build


def _view(house: House, request: Request) -> View:
    t = Texts(wanted(request.cookies.get("qwenbox_language", ""), request.headers.get("accept-language", "")))
    session: Session = getattr(request.state, SESSION)
    base_url = house.base_url or f"http://{_host(request)}:{house.port}"
    return View(house, t, session, _THEMES.get(request.cookies.get("qwenbox_theme", "")), base_url)


def _host(request: Request) -> str:
    """By which name the visitor reaches this machine."""
    try:
        host = urlsplit(f"//{request.headers.get('host', '')}").hostname or "127.0.0.1"
    except ValueError:  # "[", which no browser sends
        host = "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def _frame(view: View, room: Room, request: Request) -> None:
    ui.add_head_html(f'<link rel="stylesheet" href="/assets/{__version__}/console.css">')
    ui.colors(
        primary="#3b4fd0", secondary="#0f766e", accent="#7c3aed", positive="#1b7f4d", negative="#b3261e", warning="#9a5b00", info="#3b4fd0"
    )
    t = view.t
    # Without a value NiceGUI asks the browser for it, and complains of one that has left by then. Quasar itself knows where there is room.
    drawer = ui.left_drawer(value=False, bordered=True).props('width=232 breakpoint=900 show-if-above role="presentation"').classes("side")
    with drawer, ui.element("nav").props(f'aria-label="{t("Pages")}"'):
        for one in ROOMS:
            if not one.icon:
                continue
            with ui.element("a").props(f'href="{one.path}"').classes("nav-link") as link:
                ui.icon(one.icon).props('aria-hidden="true"')
                ui.label(t(one.title))
            if one is room:
                link.props('aria-current="page"')
    with ui.header().classes("top").props('role="banner"'):
        ui.button(icon="menu", on_click=drawer.toggle).props(f'flat round dense aria-label="{t("Menu")}"').classes("menu-button")
        parts.text("a", "qwenbox", "brand").props('href="/"')
        ui.space()
        _switches(view, request.url.path)


def _switches(view: View, back: str) -> None:
    t, here = view.t, quote(back)
    other, name = ("en", "English") if t.language == "zh-CN" else ("zh-CN", "中文")
    target = f"/preferences?language={other}&back={here}"
    parts.text("a", name, "switch").props(f'href="{target}" hreflang="{other}" lang="{other}"')
    label = t("Theme: change")
    with (
        ui.element("a")
        .props(f'href="/preferences?theme={_NEXT_THEME[view.is_dark]}&back={here}" aria-label="{label}" title="{label}"')
        .classes("switch")
    ):
        ui.icon(_THEME_ICONS[view.is_dark]).props('aria-hidden="true"')
    label = t("Password")
    with ui.element("a").props(f'href="/password" aria-label="{label}" title="{label}"').classes("switch"):
        ui.icon("manage_accounts").props('aria-hidden="true"')
    with ui.element("form").props('method="post" action="/logout"').classes("switch-form"):
        label = t("Log out")
        with ui.element("button").props(f'type="submit" aria-label="{label}" title="{label}"').classes("switch"):
            ui.icon("logout").props('aria-hidden="true"')
