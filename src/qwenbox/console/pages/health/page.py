"""This is where somebody sees whether all is well, and what to do where it is not; below it, how the box is set."""

from collections.abc import Sequence

from nicegui import ui

from qwenbox.client.system import EngineChild, EngineQueue, Finding, Setting, Standing, System
from qwenbox.console import figures, parts
from qwenbox.console.pages.health import sentences
from qwenbox.console.texts import Texts
from qwenbox.console.view import View

FIGURES = {
    "uptime": "Running for",
    "requests": "Requests now",
    "memory": "Memory of engines",
    "disk": "Disk free",
    "database": "Database",
    "cache": "Kept answers",
    "valkey": "Shared store",
}
# Settings shown before somebody asks for all.
_FIRST = 25
_MARKS = {"ok": ("check_circle", "good"), "warning": ("warning", "warn"), "failed": ("error", "bad")}


async def build(view: View) -> None:
    findings = _Findings(view)
    board = _Board(view)

    async def show() -> None:
        board.show(await view.house.polled("system", view.admin.system, 2.0).get())

    async def examine() -> None:
        findings.show(await view.house.polled("findings", view.admin.findings, 4.0).get())

    await examine()
    await show()
    _Settings(view, await view.admin.settings())
    view.every(3.0, show)
    view.every(10.0, examine)


class _Findings:
    """Trouble first, each with what to do; what is well is folded away."""

    def __init__(self, view: View) -> None:
        self._t = view.t
        self._shown: tuple[Finding, ...] = ()
        self._space = ui.element("div").classes("stack").props("data-testid=findings")

    def show(self, findings: tuple[Finding, ...]) -> None:
        if findings == self._shown:
            return
        self._shown = findings
        self._space.clear()
        t = self._t
        trouble = [one for one in distinct(findings) if one.verdict != "ok"]
        fine = [one for one in findings if one.verdict == "ok"]
        with self._space:
            if not trouble:
                with ui.element("div").classes("card row").props("data-testid=all-well"):
                    _mark("ok")
                    parts.text("h2", t("All is well"))
            for finding in trouble:
                with ui.element("div").classes("card row").style("flex-wrap: nowrap; align-items: flex-start"):
                    _mark(finding.verdict)
                    with ui.element("div").classes("stack").style("gap: 0.125rem"):
                        ui.label(sentences.found(t, finding)).classes("break")
                        ui.label(sentences.todo(t, finding)).classes("muted break")
                        if finding.code in ("weights_missing", "model_missing"):
                            parts.text("a", t("Open Models")).props('href="/models"')
            if fine:
                with ui.expansion(t("{count} checks are well", count=len(fine))).classes("w-full").props("dense data-testid=fine"):
                    for finding in fine:
                        with ui.element("div").classes("row").style("flex-wrap: nowrap"):
                            _mark("ok")
                            ui.label(sentences.found(t, finding)).classes("break")


def distinct(findings: Sequence[Finding]) -> list[Finding]:
    """Without those models that cannot answer for want of weights, of which is told already."""
    told = ("weights_missing", "weights_fetching")
    lacking = {model for one in findings if one.code in told for model in one.facts.get("models", "").split(", ")}
    return [one for one in findings if not (one.code == "model_missing" and one.facts.get("model") in lacking)]


def _mark(verdict: str) -> None:
    icon, mark = _MARKS[verdict]
    ui.icon(icon).classes(mark).style("font-size: 1.5rem; flex: none").props('aria-hidden="true"')


class _Figure:
    """A number, its name above it and what belongs to it below."""

    def __init__(self, name: str, mark: str) -> None:
        with ui.element("div").classes("figure card").props(f"data-testid=health-{mark}") as self.space:
            ui.label(name).classes("figure-name")
            self._value = ui.label("–").classes("figure-value")
            self._hint = ui.label().classes("muted small")

    def show(self, value: str, hint: str) -> None:
        self._value.set_text(value)
        self._hint.set_text(hint)


class _Board:
    """The box in figures, and its parts in tables."""

    def __init__(self, view: View) -> None:
        t = self._t = view.t
        # Two beside each other on a phone, three elsewhere.
        columns = "grid-template-columns: repeat(auto-fit, minmax(min(47%, 18rem), 1fr))"
        with ui.element("div").classes("grid-4 figures").style(columns):
            self._figures = {mark: _Figure(t(name), mark) for mark, name in FIGURES.items()}
        self._parts: tuple[object, ...] = ()
        self._tables = ui.element("div").classes("stack")

    def show(self, told: System) -> None:
        for mark, (value, hint) in values(self._t, told).items():
            self._figures[mark].show(value, hint)
        self._figures["valkey"].space.set_visibility(told.valkey != "off")
        now = (told.children, told.queues, told.standings, tuple(process.name for process in told.processes))
        if now == self._parts:
            return
        self._parts = now
        self._tables.clear()
        with self._tables:
            _children(self._t, told.children)
            _queues(self._t, told.queues)
            _standings(self._t, told.standings)
            _processes(self._t, told)


def values(t: Texts, told: System) -> dict[str, tuple[str, str]]:
    """Each figure by its mark, and what belongs to it."""
    memory_bytes = sum(child.memory_bytes for child in told.children)
    stores = {"off": t("none"), "up": t("answers"), "down": t("does not answer")}
    size = told.database.bytes
    workers = t("{count} workers", count=told.workers) if told.workers > 1 else t("one process")
    return {
        "uptime": (figures.duration(round(told.uptime_s)) if told.uptime_s >= 60 else f"{told.uptime_s:.0f} s", f"qwenbox {told.version}"),
        "requests": (figures.count(told.in_progress), workers),
        "memory": (figures.size(memory_bytes), t("of {limit} for weights", limit=figures.size(told.memory_limit_bytes))),
        "disk": (figures.size(told.disk_free_bytes), t("of {limit}", limit=figures.size(told.disk_total_bytes))),
        "database": (figures.size(size) if size is not None else "–", told.database.kind),
        "cache": (
            figures.count(told.cache.entries),
            t("answered {share} of calls", share=figures.share(told.cache.hits, told.cache.calls)),
        ),
        "valkey": (stores.get(told.valkey, told.valkey), "Valkey"),
    }


def _children(t: Texts, children: Sequence[EngineChild]) -> None:
    """Those that were ever started."""
    started = [child for child in children if child.starts]
    if not started:
        return
    parts.text("h2", t("Engines' processes"))
    headers = (t("Engine"), t("State"), t("Started"), t("After a crash"), t("Memory"))
    rows: list[list[parts.Cell]] = [
        [
            f"{child.engine} ({t('for seeds')})" if child.role == "exact" else child.engine,
            t("runs") if child.is_ready else t("rests"),
            figures.count(child.starts),
            figures.count(child.restarts),
            figures.size(child.memory_bytes) if child.memory_bytes else "–",
        ]
        for child in started
    ]
    parts.table(headers, rows, mark="children", numbers=frozenset({2, 3, 4}))


def _queues(t: Texts, queues: Sequence[EngineQueue]) -> None:
    if not queues:
        return
    parts.text("h2", t("Queues"))
    headers = (t("Engine"), t("Running"), t("Tokens held"), t("People waiting"), t("Batch lines waiting"))
    rows = [
        [
            queue.name,
            _of(queue.slots_used, queue.slots),
            _of(queue.kv_tokens_used, queue.kv_tokens),
            figures.count(queue.waiting.get("interactive", 0)),
            figures.count(queue.waiting.get("batch", 0)),
        ]
        for queue in queues
    ]
    parts.table(headers, rows, mark="queues", numbers=frozenset({1, 2, 3, 4}))


def _of(used: int, whole: int | None) -> str:
    return f"{figures.count(used)} / {figures.count(whole)}" if whole is not None else "–"


def _standings(t: Texts, standings: Sequence[Standing]) -> None:
    if not standings:
        return
    parts.text("h2", t("Deployments since the start"))
    headers = (t("Deployment"), t("State"), t("Answered"), t("Failed"), t("Asked again"))
    rows = [
        [
            standing.deployment,
            t("left alone, since it kept failing") if standing.open_in else t("in use"),
            figures.count(standing.answered),
            figures.count(standing.failed),
            figures.count(standing.retries),
        ]
        for standing in standings
    ]
    parts.table(headers, rows, mark="standings", numbers=frozenset({2, 3, 4}))


def _processes(t: Texts, told: System) -> None:
    parts.text("h2", t("Processes of the box"))
    headers = (t("Process"), t("Memory"), t("Processor time"))
    rows = [[process.name, figures.size(process.memory_bytes), figures.duration(process.cpu_s)] for process in told.processes]
    parts.table(headers, rows, mark="processes", numbers=frozenset({1, 2}))
    facts = [f"Python {told.python}", told.platform, t("profile {name}", name=told.profile), told.home]
    ui.label(" · ".join(facts)).classes("muted small break")


class _Settings:
    """All that is set, to be searched. Nobody's secret is among it: the box tells none."""

    def __init__(self, view: View, settings: Sequence[Setting]) -> None:
        t = self._t = view.t
        self._settings = settings
        self._shows_all = False
        parts.text("h2", t("Settings in force"))
        ui.label(t("As qwenbox.toml names them. Secrets and addresses of engines are hidden; a change takes a restart.")).classes("muted")
        with ui.element("div").classes("row between"):
            self._find = ui.input(placeholder=t("Find a setting")).props("outlined dense clearable debounce=150 data-testid=find-setting")
            parts.named(self._find.classes("grow"), t("Find a setting"))
            self._own = ui.checkbox(t("Only what you set")).props("data-testid=own-settings")
        self._space = ui.element("div").classes("stack")
        self._find.on_value_change(self._narrow)
        self._own.on_value_change(self._narrow)
        self._show()

    def _narrow(self) -> None:
        self._shows_all = False
        self._show()

    def _show_all(self) -> None:
        self._shows_all = True
        self._show()

    def _show(self) -> None:
        t = self._t
        text = (self._find.value or "").strip().lower()
        rows = [one for one in self._settings if chosen(one, text, is_own=bool(self._own.value))]
        shown = rows if self._shows_all else rows[:_FIRST]
        self._space.clear()
        with self._space:
            if not rows:
                ui.label(t("No setting is like that.")).classes("empty card")
                return
            cells: list[list[parts.Cell]] = [[_code(one.name), _code(one.value), _origin(t, one)] for one in shown]
            parts.table((t("Setting"), t("Value"), t("Origin")), cells, mark="settings", numbers=frozenset({2}))
            if len(shown) < len(rows):
                more = ui.button(t("Show all {count}", count=len(rows)), on_click=self._show_all).props("flat data-testid=all-settings")
                more.style("align-self: center")


def chosen(setting: Setting, text: str, *, is_own: bool) -> bool:
    """text: in lower case, a part of the name or the value."""
    return not (is_own and setting.is_default) and (text in setting.name.lower() or text in setting.value.lower())


def _code(content: str) -> parts.Cell:
    def build() -> None:
        parts.text("code", content)

    return build


def _origin(t: Texts, setting: Setting) -> str:
    if setting.is_hidden:
        return t("hidden")
    return t("as shipped") if setting.is_default else t("yours")
