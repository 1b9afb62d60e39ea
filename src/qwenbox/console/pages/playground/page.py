"""This is where models are tried: a conversation with one, or with two beside each other, and everything that can be set.

Nothing of it is stored: the conversation lives as long as its tab is open. For tests, `data-testid`:

model-picker, model-picker-2 · compare · clear · view-code, tab-NAME, snippet-NAME, copy-NAME (dashscope, openai, javascript, curl)
prompt · prompt-tokens · send · stop (all), Esc, too; stop-1 and stop-2 where two answer
pick-image, drop-image (the uploader; its `input[type=file]`) · thumb
exchange, in it: question, edit-question, question-editor, question-save, delete-turn; column-1 and column-2, in each: reasoning, answer,
answer-error, usage, request-id, tool-call, tool-result, tool-continue, regenerate, answer-editor, answer-save
system-prompt · param-NAME (temperature, top_p, top_k, seed, max_tokens, presence_penalty, repetition_penalty, stop, thinking,
thinking-budget, format, tool-choice) · schema-editor, schema-editor-problem · tools, tools-editor, tools-editor-problem, tools-example
spoken: what screen readers are told when an answer is complete.
"""

from collections.abc import Sequence

import anyio
from nicegui import context, ui

from qwenbox import __version__
from qwenbox.client.catalog import Model
from qwenbox.client.chat import open_chat
from qwenbox.console import figures, parts
from qwenbox.console.pages.playground import code_view, request
from qwenbox.console.pages.playground.asking import Hearing
from qwenbox.console.pages.playground.composer import Composer
from qwenbox.console.pages.playground.conversation import Conversation, Exchange, Step
from qwenbox.console.pages.playground.exchange import Acts, ExchangeView
from qwenbox.console.pages.playground.parameters import Parameters
from qwenbox.console.pages.playground.request import Question, Wrong
from qwenbox.console.view import View
from qwenbox.terms.errors import ApiError, ErrorKind

_SPOKEN = 2_000
_CATALOG_EVERY_S = 3.0

# Follow a growing answer while its end is in sight; whoever scrolled up is left alone. On a phone parameters are folded, and no
# keyboard comes up by itself.
_OPENED = """
(() => {
  if (innerWidth < 900) document.querySelector(".settings-card")?.removeAttribute("open");
  else document.querySelector(".prompt textarea")?.focus();
  const talk = document.querySelector(".talk-side"); if (!talk) return;
  const root = document.scrollingElement; let near = true;
  addEventListener("scroll", () => { near = root.scrollHeight - root.scrollTop - innerHeight < 160 }, { passive: true });
  new ResizeObserver(() => { if (near) root.scrollTop = root.scrollHeight }).observe(talk);
})()
"""


async def build(view: View) -> None:
    for sheet in ("markdown", "playground"):
        ui.add_head_html(f'<link rel="stylesheet" href="/assets/{__version__}/{sheet}.css">')
    models = [
        model for model in await view.house.polled("catalog", view.admin.catalog, _CATALOG_EVERY_S).get() if "chat" in model.capabilities
    ]
    named = [model for model in models if model.name != "*"]
    if not named:
        parts.empty(view, view.t("No model here can chat."), "qwenbox pull qwen-turbo")
        return
    page = _Playground(view, named)
    page.build()
    context.client.on_delete(page.leave)  # pyright: ignore[reportUnknownMemberType]  (its handler's result is untyped)


class _Playground:
    """One open page. models: those that can chat, in the catalog's order."""

    def __init__(self, view: View, models: Sequence[Model]) -> None:
        self._view = view
        self._models = {model.name: model for model in models}
        self._talk = Conversation()
        self._views: dict[Exchange, ExchangeView] = {}
        self._acts = Acts(ask_again=self._ask_again, leave_out=self._leave_out, go_on=self._go_on)
        self._is_comparing = False
        self._is_left = False

    def build(self) -> None:
        with ui.element("div").classes("playground") as self._root:
            self._root.on("keydown", self._talk.stop, js_handler="(e) => { if (e.key === 'Escape') emit() }")
            with ui.element("div").classes("talk-side"):
                self._build_head()
                self._box = ui.element("div").classes("talk").props("data-testid=talk")
                self._build_empty()
                self._spoken = ui.label().classes("unseen").props('role="status" aria-live="polite" data-testid=spoken')
                self._composer = Composer(self._view, self._send, self._talk.stop, self._count)
            self._build_settings()
        self._fit()
        ui.run_javascript(_OPENED)

    def leave(self) -> None:
        """The tab is closed: nobody hears the answers any more, and there is nothing left to draw on."""
        self._is_left = True
        self._talk.stop()

    def _build_head(self) -> None:
        t = self._view.t
        names = list(self._models)
        with ui.element("div").classes("row between playground-head"):
            with ui.element("div").classes("row grow"):
                self._pickers = [self._picker(names[0], ""), self._picker(names[min(1, len(names) - 1)], "-2")]
            with ui.element("div").classes("row tight"):
                self._compare = ui.button(t("Compare"), icon="vertical_split", on_click=self._toggle_compare)
                self._compare.props('flat no-caps data-testid=compare aria-pressed="false"')
                ui.button(t("Code"), icon="code", on_click=self._view.handler(self._show_code)).props("flat no-caps data-testid=view-code")
                ui.button(t("Clear"), icon="clear_all", on_click=self._clear).props("flat no-caps data-testid=clear")

    def _picker(self, name: str, mark: str) -> ui.select:
        with ui.element("div").classes("picker") as box:
            label = self._view.t("Model") if not mark else self._view.t("Second model")
            picker = ui.select(list(self._models), value=name, label=label, on_change=self._fit).props("outlined dense options-dense")
            picker.props(f"data-testid=model-picker{mark}")
            told = ui.label().classes("muted small break")
            told.bind_text_from(picker, "value", backward=lambda chosen: self._weights(str(chosen)))
        box.set_visibility(not mark)
        return picker

    def _weights(self, name: str) -> str:
        """Which weights answer, and what is missing if none do."""
        deployments = self._models[name].deployments
        ready = next((one for one in deployments if one.state in ("ready", "idle", "starting")), None)
        if ready is not None:
            return ready.weights or ready.name
        return " · ".join(filter(None, (deployments[0].state, deployments[0].detail))) if deployments else ""

    def _build_empty(self) -> None:
        t = self._view.t
        with self._box, ui.element("div").classes("hello stack") as self._hello:
            ui.label(t("Ask a model, and see what it takes."))
            ui.label(
                t("Nothing here is stored: the conversation lives in this tab. The calls are billed to {account}.", account=self._payer)
            ).classes("muted small")
            with ui.element("div").classes("row"):
                for text in (
                    t("Explain quicksort, with code."),
                    t("Write a poem about the sea."),
                    t("What is 17 × 24? Think step by step."),
                ):
                    self._idea(text)

    def _idea(self, text: str) -> None:
        ui.button(text, on_click=lambda: self._composer.prompt.set_value(text), color=None).props("outline no-caps size=sm").classes("idea")

    @property
    def _payer(self) -> str:
        return self._view.session.account or self._view.t("the default account")

    def _build_settings(self) -> None:
        t = self._view.t
        aside = ui.element("aside").classes("settings-side").props(f'aria-label="{t("Parameters")}"')
        with aside, ui.element("details").classes("card settings-card").props("open"):
            parts.text("summary", t("Parameters"))
            with ui.element("div").classes("stack settings-body"):
                self._parameters = Parameters(self._view, self._changed)

    @property
    def _sides(self) -> tuple[int, ...]:
        return (0, 1) if self._is_comparing else (0,)

    def _model(self, side: int) -> Model:
        return self._models[str(self._pickers[side].value)]

    def _fit(self) -> None:
        """What can be set follows from the models that are chosen."""
        models = [self._model(side) for side in self._sides]
        self._parameters.fit(models)
        self._composer.set_takes_pictures(all("vision" in model.capabilities for model in models))
        self._changed()

    def _changed(self) -> None:
        self._composer.touched()

    def _toggle_compare(self) -> None:
        self._is_comparing = not self._is_comparing
        self._compare.props(f'aria-pressed="{"true" if self._is_comparing else "false"}"')
        if box := self._pickers[1].parent_slot:
            box.parent.set_visibility(self._is_comparing)
        self._root.classes(add="comparing" if self._is_comparing else "", remove="" if self._is_comparing else "comparing")
        self._fit()

    async def _count(self) -> None:
        """How long the prompt would be, and its price."""
        draft, model = self._composer.draft, self._model(0)
        if draft is None:
            self._composer.told.set_text("")
            return
        try:
            asked = request.body(self._parameters.wishes(model), [*self._talk.turns(0), draft])
            key = await self._view.house.own_keys.key(self._view.session.account)
            async with open_chat(self._view.house.box, key) as client:
                tokens = await client.count(request.count_body(asked))
        except (ApiError, Wrong):
            self._composer.told.set_text("")
            return
        t = self._view.t
        told = [t("{count} tokens", count=figures.count(tokens)), _price(model, tokens)]
        if draft.pictures:
            told.append(t("and pictures"))
        self._composer.told.set_text(" · ".join(filter(None, told)))

    async def _send(self) -> None:
        if self._talk.running:
            return
        self._check()
        question = self._composer.taken()
        if question is None:
            return
        self._hello.set_visibility(False)
        await self._ask(self._add(question))

    def _add(self, question: Question) -> Exchange:
        exchange = Exchange(question)
        self._talk.exchanges.append(exchange)
        with self._box:
            self._views[exchange] = ExchangeView(self._view, exchange, self._acts)
        return exchange

    def _check(self) -> None:
        """Raises ApiError for what is set wrongly, before anything is changed."""
        for side in self._sides:
            self._body(side, [])

    def _body(self, side: int, turns: Sequence[request.Turn]) -> request.Body:
        try:
            return request.body(self._parameters.wishes(self._model(side)), turns)
        except Wrong as wrong:
            raise ApiError(ErrorKind.INVALID_REQUEST, self._view.t(wrong.told, **wrong.values)) from wrong

    async def _ask(self, exchange: Exchange) -> None:
        """All sides at the same time."""
        self._composer.set_running(True)
        try:
            async with anyio.create_task_group() as sides:
                for side in self._sides:
                    sides.start_soon(self._answer, exchange, side)
        finally:
            self._rest()

    async def _answer(self, exchange: Exchange, side: int) -> None:
        turns = [turn for before in self._talk.before(exchange) for turn in before.turns(side)]
        asked = self._body(side, [*turns, *exchange.own_turns(side)])
        hearing = Hearing(self._model(side).name)
        step = Step(hearing)
        exchange.steps[side].append(step)
        shown = self._views[exchange].add_step(side, step, is_json=self._parameters.format != "text", can_stop=self._is_comparing)
        async with anyio.create_task_group() as both:
            both.start_soon(shown.follow, hearing)
            await hearing.listen(self._view.house, self._view.session.account, asked)
        if self._is_left:
            return
        step.settle()
        shown.finish()
        self._views[exchange].settled(side)
        self._say(hearing)

    def _say(self, hearing: Hearing) -> None:
        t = self._view.t
        if hearing.trouble is not None:
            return
        self._spoken.set_text(t("{model} has answered: {text}", model=hearing.model, text=hearing.text[:_SPOKEN]))

    async def _go_on(self, exchange: Exchange, side: int) -> None:
        self._composer.set_running(True)
        try:
            await self._answer(exchange, side)
        finally:
            self._rest()

    def _rest(self) -> None:
        if not self._is_left:
            self._composer.set_running(False)
            self._changed()

    async def _ask_again(self, exchange: Exchange) -> None:
        """The same question anew; what came after it answered something else and goes."""
        if self._talk.running:
            return
        self._check()
        for later in self._talk.exchanges[self._talk.exchanges.index(exchange) + 1 :]:
            self._leave_out(later)
        for steps in exchange.steps:
            steps.clear()
        self._views[exchange].clear_answers()
        await self._ask(exchange)

    def _leave_out(self, exchange: Exchange) -> None:
        for steps in exchange.steps:
            for step in steps:
                step.hearing.stop()
        self._talk.exchanges.remove(exchange)
        self._views.pop(exchange).box.delete()
        self._hello.set_visibility(not self._talk.exchanges)
        self._changed()

    def _clear(self) -> None:
        for exchange in list(self._talk.exchanges):
            self._leave_out(exchange)
        self._composer.prompt.run_method("focus")

    def _show_code(self) -> None:
        """For what would be sent now; after an answer, for what was asked last."""
        draft = self._composer.draft
        turns = [*self._talk.turns(0), draft] if draft is not None else self._asked_last()
        code_view.show(self._view, self._body(0, turns), list(turns))

    def _asked_last(self) -> list[request.Turn]:
        exchanges = self._talk.exchanges
        if not exchanges:
            return [Question(text=self._view.t("Explain quicksort, with code."))]
        turns = self._talk.turns(0)
        # Without its last answer it is the request that led to it.
        return turns[:-1] if len(turns) > 1 and not isinstance(turns[-1], Question) else turns


def _price(model: Model, tokens: int) -> str:
    """Of that many input tokens, in the tier they fall in."""
    if model.price is None:
        return ""
    tiers = model.price.tiers
    tier = next((tier for tier in tiers if tier.up_to_tokens is None or tokens <= tier.up_to_tokens), tiers[-1])
    return figures.money(-(-tokens * tier.input_micros // 1_000_000), model.price.currency)
