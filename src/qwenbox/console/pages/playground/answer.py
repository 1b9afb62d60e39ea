"""This is where an answer is seen: its thinking folded, its text growing block by block, its tool calls, what it took."""

import time
from collections.abc import Awaitable, Callable
from urllib.parse import quote

import anyio
import msgspec
from nicegui import ui

from qwenbox.console import figures, markdown, parts
from qwenbox.console.pages.playground.asking import Hearing
from qwenbox.console.pages.playground.conversation import Step
from qwenbox.console.pages.playground.request import Call
from qwenbox.console.view import View

# A fluent text, whatever the model's pace; slower where drawing takes long, so that nothing else waits.
_DRAW_EVERY_S = 0.05
_PATIENCE = 8.0
_CHARACTERS_S = 100_000
# Thoughts are folded away; whoever unfolds them sees them grow, too.
_THOUGHTS_EVERY_S = 0.25
_MOST_PLAIN = 20_000

Again = Callable[[], Awaitable[None]]


class GrowingText:
    """Markdown that grows: blocks that are over stay as they are, the last one is drawn anew."""

    def __init__(self) -> None:
        self._shown = ""
        self._fixed = 0
        self._box = ui.element("div").classes("markdown")
        self._last: ui.html | None = None

    @property
    def open_characters(self) -> int:
        """How long the block is that is drawn anew."""
        return len(self._shown) - self._fixed

    def show(self, text: str) -> None:
        """text: the whole, which begins with what was shown before."""
        if text == self._shown:
            return
        self._shown = text
        blocks, rest = markdown.split(text[self._fixed :])
        for block in blocks:
            self._draw(block)
            self._last = None
        self._fixed = len(text) - len(rest)
        self._draw(rest)

    def _draw(self, block: str) -> None:
        html = markdown.render(block)
        if self._last is None:
            with self._box:
                # Everything in it comes from console/markdown.py, whose output cannot act; DOMPurify would take links their target.
                self._last = ui.html(html, sanitize=False)
        else:
            self._last.set_content(html)


class StepView:
    """One reply of a model in its place. is_json: it is to be JSON. go_on: the results of its tools are there.

    stop_button: for this one alone; it goes when the answer is over.
    """

    stop_button: ui.button | None = None

    def __init__(self, view: View, step: Step, *, is_json: bool, go_on: Again) -> None:
        self._view = view
        self._step = step
        self._is_json = is_json
        self._go_on = go_on
        t = view.t
        with ui.element("div").classes("step stack"):
            with ui.element("details").classes("reasoning").props("data-testid=reasoning") as self._reasoning_box:
                self._reasoning_name = parts.text("summary", t("Thinking…"))
                self._reasoning = ui.label().classes("reasoning-text break")
            self._reasoning_box.set_visibility(False)
            with ui.element("div").props("data-testid=answer").classes("answer") as self._answer:
                self._text = GrowingText()
                self._json: ui.html | None = None
                self._waiting = ui.element("span").classes("waiting").props(f'role="img" aria-label="{t("Waiting for the first token")}"')
            self._calls = ui.element("div").classes("stack")
            self._trouble = ui.element("div").classes("trouble").props('role="alert" data-testid=answer-error')
            self._trouble.set_visibility(False)
            with ui.element("div").classes("usage muted small").props("data-testid=usage") as self._figures:
                self._progress = ui.label()
        self._thoughts_due = 0.0

    async def follow(self, hearing: Hearing) -> None:
        """Show it as it comes, until it is over."""
        wait_s = _DRAW_EVERY_S
        while not hearing.is_over:
            await anyio.sleep(wait_s)
            if hearing.was_stopped:
                return
            begun = time.perf_counter()
            self._grow(hearing)
            drawn_s = _PATIENCE * (time.perf_counter() - begun)
            wait_s = max(_DRAW_EVERY_S, drawn_s, self._text.open_characters / _CHARACTERS_S)

    def finish(self) -> None:
        """Show how it ended."""
        hearing = self._step.hearing
        if self.stop_button is not None:
            self.stop_button.delete()
        self._grow(hearing)
        self._waiting.set_visibility(False)
        if self._is_json and hearing.text:
            self._text.show("")
            with self._answer:
                self._json = ui.html(markdown.code(_pretty(hearing.text), "json"), sanitize=False)
            self._answer.classes("as-code")
        self._show_calls()
        self._show_trouble(hearing)
        self._show_figures(hearing)

    def rewrite(self) -> None:
        """The visitor wrote it anew."""
        self._answer.clear()
        with self._answer:
            self._text = GrowingText()
        self._text.show(self._step.reply.text)

    def _grow(self, hearing: Hearing) -> None:
        t = self._view.t
        if hearing.is_begun:
            self._waiting.set_visibility(False)
        now = time.monotonic()
        if hearing.reasoning and (hearing.is_over or now >= self._thoughts_due):
            self._thoughts_due = now + _THOUGHTS_EVERY_S
            self._reasoning_box.set_visibility(True)
            self._reasoning.set_text(hearing.reasoning[-_MOST_PLAIN:])
            is_thinking = not hearing.text and not hearing.is_over
            self._reasoning_name.set_text(t("Thinking…") if is_thinking else t("Thoughts"))
        if hearing.text:
            self._text.show(hearing.text)
        if not hearing.is_over:
            self._progress.set_text(_progress(self._view, hearing))

    def _show_calls(self) -> None:
        calls = self._step.reply.calls
        self._calls.clear()
        if not calls:
            return
        with self._calls:
            for call in calls:
                self._card(call)
            if self._step.is_waiting:
                ui.button(self._view.t("Send results"), on_click=self._view.handler(self._send)).props(
                    "unelevated no-caps data-testid=tool-continue"
                ).classes("self-start")

    def _card(self, call: Call) -> None:
        t = self._view.t
        with ui.element("div").classes("tool-call stack").props("data-testid=tool-call"):
            with ui.element("div").classes("row"):
                ui.icon("build").props('aria-hidden="true"')
                parts.text("strong", call.name)
            ui.html(markdown.code(_pretty(call.arguments), "json"), sanitize=False)
            area = ui.textarea(t("What {name} returned", name=call.name), value=call.result or "").props("outlined dense autogrow")
            area.props("data-testid=tool-result")
            area.bind_value_to(call, "result", forward=lambda value: value or None)
            if call.result is not None:
                area.props("readonly")

    async def _send(self) -> None:
        for call in self._step.reply.calls:
            call.result = call.result or ""
        self._show_calls()
        await self._go_on()

    def _show_trouble(self, hearing: Hearing) -> None:
        trouble, t = hearing.trouble, self._view.t
        if trouble is None:
            return
        self._trouble.set_visibility(True)
        with self._trouble:
            ui.label(t("The box could not answer.")).classes("bad")
            ui.label(trouble.message).classes("break")
            parts.text("code", trouble.code, "small")

    def _show_figures(self, hearing: Hearing) -> None:
        t, receipt, usage = self._view.t, hearing.receipt, hearing.usage
        call = receipt.call if receipt else None
        used = call or usage
        told: list[str] = []
        if used is not None:
            cached = used.cached_tokens
            told.append(t("{count} in", count=figures.count(used.input_tokens)))
            if cached:
                told.append(t("{count} of them cached", count=figures.count(cached)))
            told.append(t("{count} out", count=figures.count(used.output_tokens)))
        if call is not None:
            told.append(figures.money(call.cost_micros, call.currency))
        if hearing.ttft_s is not None:
            told.append(t("first token after {time}", time=figures.duration(hearing.ttft_s)))
        told.append(_rate(self._view, hearing.tokens_s))
        told.append(t("stopped") if hearing.was_stopped else _ending(self._view, hearing.reason))
        if call is not None and call.is_cache_hit:
            told.append(t("from the cache"))
        elif call is not None and call.deployment:
            told.append(call.deployment)
        self._figures.clear()
        with self._figures:
            for text in filter(None, told):
                parts.text("span", text)
            if hearing.request_id:
                address = f"/logs?request={quote(hearing.request_id, safe='')}"
                link = parts.text("a", hearing.request_id[:13] + "…", "mono").props(f'href="{address}" data-testid=request-id')
                parts.named(link, t("The call {id} in the logs", id=hearing.request_id))


def _progress(view: View, hearing: Hearing) -> str:
    """While it goes on; a model that has to be loaded first takes its time."""
    if not hearing.is_begun:
        return f"{hearing.waited_s:.0f} s" if hearing.waited_s >= 1 else ""
    return " · ".join(filter(None, (view.t("{count} tokens", count=figures.count(hearing.tokens)), _rate(view, hearing.tokens_s))))


def _ending(view: View, reason: str) -> str:
    t = view.t
    endings = {
        "length": t("cut: as long as it may be"),
        "tool_calls": t("called a tool"),
        "content_filter": t("stopped by a content filter"),
    }
    return endings.get(reason, reason)


def _rate(view: View, rate: float | None) -> str:
    return "" if rate is None else view.t("{rate} tokens/s", rate=f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}")


def _pretty(text: str) -> str:
    try:
        return msgspec.json.format(text, indent=2)
    except (msgspec.DecodeError, RecursionError):
        return text
