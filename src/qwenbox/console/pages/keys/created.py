"""This is where a new key is shown, once, so that it is not lost by accident; and when a key was last used.

For tests: new-key, key-settings, key-copied.
"""

from nicegui import ui

from qwenbox.client.shapes import IssuedKey, Key
from qwenbox.client.usage import CallsAsked
from qwenbox.console import figures, parts
from qwenbox.console.view import View


def show(view: View, issued: IssuedKey) -> None:
    """Until the visitor says that it is copied; a browser that is about to leave the page asks first."""
    t, base = view.t, view.base_url
    with parts.dialog(t("Your new key"), is_persistent=True) as dialog:
        parts.text("h2", t("Your new key"))
        ui.label(t("Copy it now: it is stored hashed and not shown again."))
        parts.copyable(view, issued.secret, mark="new-key")
        ui.label(t("For dashscope and openai:")).classes("muted")
        lines = {
            "DASHSCOPE_HTTP_BASE_URL": f"{base}/api/v1",
            "DASHSCOPE_API_KEY": issued.secret,
            "OPENAI_BASE_URL": f"{base}/compatible-mode/v1",
            "OPENAI_API_KEY": issued.secret,
        }
        parts.copyable(view, "\n".join(f"export {name}={value}" for name, value in lines.items()), mark="key-settings")
        with ui.element("div").classes("row end"):
            ui.button(t("I have copied it"), on_click=dialog.close).props("unelevated autofocus data-testid=key-copied")
    ui.run_javascript("window.onbeforeunload = (event) => event.preventDefault()")
    dialog.on("hide", js_handler="() => { window.onbeforeunload = null }")
    dialog.open()


async def last_used(view: View, key: Key) -> str:
    """As far as calls are kept, and the box looks through them at once."""
    page = await view.admin.calls(CallsAsked(key=key.id, limit=1))
    if not page.items and page.next_cursor:
        return view.t("Not used lately: the newest calls are all of other keys.")
    if not page.items:
        return view.t("Not used yet, as far as calls are kept.")
    last = page.items[0]
    return view.t("Last used {moment}, for {model}.", moment=figures.moment(last.arrived_at), model=last.model)
