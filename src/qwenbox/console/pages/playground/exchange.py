"""This is where one question and its answers are seen, changed, asked again and left out."""

from collections.abc import Awaitable, Callable

from nicegui import ui

from qwenbox.console import parts
from qwenbox.console.pages.playground.answer import StepView
from qwenbox.console.pages.playground.composer import thumbnail
from qwenbox.console.pages.playground.conversation import SIDES, Exchange, Step
from qwenbox.console.view import View

Act = Callable[[Exchange], Awaitable[None] | None]


class Acts:
    """What can be done with an exchange; the page does it. go_on: a side's tools have their results."""

    def __init__(self, *, ask_again: Act, leave_out: Act, go_on: Callable[[Exchange, int], Awaitable[None]]) -> None:
        self.ask_again = ask_again
        self.leave_out = leave_out
        self.go_on = go_on


class ExchangeView:
    """exchange: what is shown. acts: what its buttons do."""

    def __init__(self, view: View, exchange: Exchange, acts: Acts) -> None:
        self._view = view
        self.exchange = exchange
        self._acts = acts
        self._steps: dict[Step, StepView] = {}
        self._answer_acts: dict[int, ui.element] = {}
        with ui.element("section").classes("exchange").props("data-testid=exchange") as self.box:
            self._question = ui.element("div").classes("question")
            with ui.element("div").classes("answers"):
                self._sides = [ui.element("div").classes("lane").props(f"data-testid=column-{side + 1}") for side in SIDES]
        for side in self._sides:
            side.set_visibility(False)
        self._show_question()

    def add_step(self, side: int, step: Step, *, is_json: bool, can_stop: bool) -> StepView:
        """A place for one more reply of that side. can_stop: with a button for it alone."""
        box = self._sides[side]
        box.set_visibility(True)
        if acts := self._answer_acts.pop(side, None):
            acts.delete()
        with box:
            if len(self.exchange.steps[side]) == 1:
                parts.text("h2", step.hearing.model, "lane-name")
            shown = StepView(self._view, step, is_json=is_json, go_on=self._view.handler(lambda: self._acts.go_on(self.exchange, side)))
            if can_stop:
                stop = ui.button(self._view.t("Stop"), icon="stop", on_click=step.hearing.stop)
                shown.stop_button = stop.props(f"flat dense no-caps size=sm data-testid=stop-{side + 1}").classes("self-start")
        self._steps[step] = shown
        return shown

    def clear_answers(self) -> None:
        self._steps.clear()
        self._answer_acts.clear()
        for side in self._sides:
            side.clear()
            side.set_visibility(False)

    def settled(self, side: int) -> None:
        """All is said: now it can be copied, changed and asked again."""
        steps = self.exchange.steps[side]
        if not steps:
            return
        t = self._view.t
        last = steps[-1]
        with self._sides[side], ui.element("div").classes("row tight acts") as self._answer_acts[side]:
            self._act("content_copy", t("Copy the answer"), lambda: self._copy(last))
            self._act("edit", t("Change the answer"), lambda: self._edit_answer(side, last))
            self._act("refresh", t("Ask again"), lambda: self._acts.ask_again(self.exchange), "regenerate")

    def _act(self, icon: str, name: str, run: Callable[[], Awaitable[None] | None], mark: str = "") -> None:
        button = ui.button(icon=icon, on_click=self._view.handler(run), color=None).props("flat round dense size=sm")
        if mark:
            button.props(f"data-testid={mark}")
        parts.named(button, name).tooltip(name)

    def _copy(self, step: Step) -> None:
        parts.copy(step.reply.text)
        self._view.tell(self._view.t("Copied."))

    def _show_question(self) -> None:
        t, question = self._view.t, self.exchange.question
        self._question.clear()
        with self._question:
            with ui.element("div").classes("question-body").props("data-testid=question"):
                if question.pictures:
                    with ui.element("div").classes("row thumbs"):
                        for picture in question.pictures:
                            with ui.element("div").classes("thumb"):
                                thumbnail(picture)
                ui.label(question.text).classes("question-text break")
            with ui.element("div").classes("row tight acts"):
                self._act("edit", t("Change the question"), self._edit_question, "edit-question")
                self._act("delete_outline", t("Delete this turn"), lambda: self._acts.leave_out(self.exchange), "delete-turn")

    def _edit_question(self) -> None:
        t, question = self._view.t, self.exchange.question
        self._question.clear()

        async def save() -> None:
            question.text = (area.value or "").strip()
            self._show_question()
            await _done(self._acts.ask_again(self.exchange))

        with self._question, ui.element("div").classes("stack question-body editing"):
            area = ui.textarea(t("Question"), value=question.text).props("outlined dense autogrow autofocus data-testid=question-editor")
            with ui.element("div").classes("row end"):
                ui.button(t("Cancel"), on_click=self._show_question).props("flat no-caps")
                ui.button(t("Save and ask again"), on_click=self._view.handler(save)).props("unelevated no-caps data-testid=question-save")

    def _edit_answer(self, side: int, step: Step) -> None:
        t = self._view.t

        def save() -> None:
            step.rewrite(area.value or "")
            dialog.close()
            self._steps[step].rewrite()

        with parts.dialog(t("Change the answer")) as dialog:
            parts.text("h2", t("Change the answer"))
            ui.label(t("The model will read it as its own.")).classes("muted")
            area = ui.textarea(t("Answer"), value=step.reply.text).props("outlined autogrow autofocus data-testid=answer-editor")
            with ui.element("div").classes("row end"):
                ui.button(t("Cancel"), on_click=dialog.close).props("flat no-caps")
                ui.button(t("Save"), on_click=save).props("unelevated no-caps data-testid=answer-save")
        dialog.open()


async def _done(made: Awaitable[None] | None) -> None:
    if made is not None:
        await made
