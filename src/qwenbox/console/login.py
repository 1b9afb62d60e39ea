"""This is where the log-in page is written: plain HTML, the only page that is seen without a session."""

from html import escape
from importlib import resources

from qwenbox.console.texts import Texts

# In the page itself: nothing else is served without a session.
_STYLE = resources.files("qwenbox.console").joinpath("assets", "login.css").read_text("utf-8")


def page(t: Texts, is_dark: bool | None, problem: str = "") -> str:
    """The whole page. problem: why the last try failed."""
    theme = "" if is_dark is None else f' data-theme="{"dark" if is_dark else "light"}"'
    alert = f'<p role="alert">{escape(problem)}</p>' if problem else ""
    hint = escape(t("No password yet? On the machine of the box, `qwenbox console` opens this page without one.")).replace("`", "")
    return f"""<!doctype html>
<html lang="{t.language}"{theme}><head><meta charset="utf-8"><title>{escape(t("Log in"))} · qwenbox</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,"><style>{_STYLE}</style></head>
<body><main><h1>qwenbox</h1>{alert}
<form method="post" action="/login">
<label>{escape(t("Account"))}<input name="account" autocomplete="username" required autofocus></label>
<label>{escape(t("Password"))}<input name="password" type="password" autocomplete="current-password" required></label>
<button>{escape(t("Log in"))}</button></form>
<p class="hint">{hint}</p></main></body></html>
"""
