"""This is where a person talks to a model of a running box: one question, or a conversation."""

import sys
from collections.abc import AsyncIterator
from typing import Annotated

import anyio
import msgspec
import typer
from rich.live import Live
from rich.markdown import Markdown
from rich.text import Text

from qwenbox.cli.box import Address, Key, open_running_box
from qwenbox.cli.console import emit, err, out, settings, told
from qwenbox.cli.markdown import split_finished
from qwenbox.config import Config
from qwenbox.terms.chat import ChatRequest, Message, Role, Sampling, TextPart, Thinking
from qwenbox.terms.errors import ApiError
from qwenbox.terms.events import ChatEvent, ChatResult, Fold, ReasoningDelta, TextDelta

try:
    import readline  # gives `input` editing and history; not every Python has it
except ImportError:  # pragma: no cover
    readline = None

_HISTORY_LINES = 1_000
_HELP = """/reset          forget the conversation
/model NAME     ask another model from now on
/system TEXT    set the system prompt and forget the conversation
/exit           leave (Ctrl+D does, too); Ctrl+C stops an answer"""


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of `--json`."""

    model: str
    text: str
    reasoning: str
    finish_reason: str
    input_tokens: int
    output_tokens: int


class Talk:
    """A conversation: what was said, and how the next question is asked."""

    def __init__(self, request: ChatRequest, system: str) -> None:
        self.request = request
        self.system = system
        self.turns: tuple[Message, ...] = ()

    def ask(self, question: str) -> ChatRequest:
        """The whole conversation with this question at its end."""
        opening = (_message(Role.SYSTEM, self.system),) if self.system else ()
        return msgspec.structs.replace(self.request, messages=(*opening, *self.turns, _message(Role.USER, question)))

    def heard(self, question: str, answer: str) -> None:
        self.turns = (*self.turns, _message(Role.USER, question), _message(Role.ASSISTANT, answer))


def chat(
    question: Annotated[str, typer.Argument(help="Ask this and leave; without it a conversation begins.", show_default=False)] = "",
    model: Annotated[str, typer.Option("--model", "-m", help="Whom to ask; nothing: the first model.", show_default=False)] = "",
    system: Annotated[str, typer.Option("--system", "-s", help="System prompt.")] = "",
    temperature: Annotated[float | None, typer.Option(help="0 is greedy.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Share of probability kept.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same answer.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer.")] = None,
    think: Annotated[bool | None, typer.Option("--think/--no-think", help="Let a model that can think do so, or not.")] = None,
    raw: Annotated[bool, typer.Option(help="Plain text instead of rendered Markdown.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole answer and its usage as JSON.")] = False,
    key: Key = "",
    address: Address = "",
) -> None:
    """Talk to a model of a running box.

    What is piped in is part of the question, or is the question.

    Examples: `qwenbox chat "Write quicksort in Python"` · `cat app.py | qwenbox chat "Explain this"` · `qwenbox chat -m qwen-plus`
    """
    config = settings()
    request = ChatRequest(
        model=model or _first_model(config),
        messages=(),
        sampling=Sampling(temperature=temperature, top_p=top_p, seed=seed),
        max_output_tokens=max_tokens,
        thinking=Thinking(is_enabled=think),
    )
    voice = _Voice(config, key, address, is_rendered=out.is_terminal and not raw and not as_json, is_silent=as_json)
    talk = Talk(request, system)
    asked = _with_input(question)
    if not asked and sys.stdin.isatty() and not as_json:
        _converse(talk, voice)
        return
    if not asked:
        err.print("Nothing was asked: give a question, or pipe one in.")
        raise typer.Exit(2)
    with told():
        result = voice.ask(talk.ask(asked))
    if as_json:
        emit(_said(talk.request.model, result))


class _Voice:
    """Asks, and shows the answer while it comes."""

    def __init__(self, config: Config, key: str, address: str, *, is_rendered: bool, is_silent: bool) -> None:
        self._config = config
        self._key = key
        self._address = address
        self._is_rendered = is_rendered
        self._is_silent = is_silent

    def ask(self, request: ChatRequest) -> ChatResult:
        """Raises ApiError."""
        return anyio.run(self._ask, request)

    async def _ask(self, request: ChatRequest) -> ChatResult:
        async with open_running_box(self._config, self._address, self._key) as box, box.chat(request) as events:
            fold = Fold()
            if self._is_silent:
                async for event in events:
                    fold.add(event)
            elif self._is_rendered:
                await _render(events, fold)
            else:
                await _print(events, fold)
            return fold.result()


def _converse(talk: Talk, voice: _Voice) -> None:
    if readline:
        readline.set_history_length(_HISTORY_LINES)
    out.print(f"[bold]{talk.request.model}[/bold] · /help shows commands, Ctrl+D leaves")
    while True:
        try:
            line = input("\n> ").strip()
        except (EOFError, KeyboardInterrupt):
            out.print()
            return
        if line in ("/exit", "/quit", "/bye"):
            return
        if line.startswith("/"):
            _command(talk, line)
        elif line:
            _turn(talk, voice, line)


def _turn(talk: Talk, voice: _Voice, question: str) -> None:
    """One question of a conversation; a failed or stopped one leaves no trace in it."""
    try:
        result = voice.ask(talk.ask(question))
    except ApiError as error:
        err.print(error.message or error.kind.value, style="red", markup=False)
    except KeyboardInterrupt:
        out.print("\n(stopped)", style="dim")
    else:
        talk.heard(question, result.choices[0].text)


def _command(talk: Talk, line: str) -> None:
    name, _, rest = line.partition(" ")
    match name:
        case "/reset":
            talk.turns = ()
            out.print("Forgotten.")
        case "/model" if rest:
            talk.request = msgspec.structs.replace(talk.request, model=rest.strip())
            out.print(f"Asking {rest.strip()} now.", markup=False)
        case "/system":
            talk.system, talk.turns = rest.strip(), ()
            out.print("The system prompt is set; the conversation begins anew.")
        case _:
            out.print(_HELP, markup=False)


async def _print(events: AsyncIterator[ChatEvent], fold: Fold) -> None:
    """As it comes; thoughts go to standard error, so that a pipe gets the answer alone."""
    async for event in events:
        fold.add(event)
        if isinstance(event, TextDelta):
            sys.stdout.write(event.text)
            sys.stdout.flush()
        elif isinstance(event, ReasoningDelta):
            sys.stderr.write(event.text)
    sys.stdout.write("\n")


async def _render(events: AsyncIterator[ChatEvent], fold: Fold) -> None:
    """Finished blocks are printed for good; only the last one is redrawn, so that an answer may be longer than the screen."""
    open_text = ""
    with Live(console=out, refresh_per_second=12, transient=True, vertical_overflow="ellipsis") as live:
        async for event in events:
            fold.add(event)
            if isinstance(event, ReasoningDelta):
                out.print(Text(event.text, style="dim"), end="")
            elif isinstance(event, TextDelta):
                finished, open_text = split_finished(open_text + event.text)
                if finished:
                    out.print(Markdown(finished))
                live.update(Markdown(open_text))
    if open_text:
        out.print(Markdown(open_text))


def _with_input(question: str) -> str:
    piped = "" if sys.stdin.isatty() else sys.stdin.read().strip()
    return "\n\n".join(part for part in (question, piped) if part)


def _first_model(config: Config) -> str:
    return config.model[0].name if config.model else "qwen-turbo"


def _message(role: Role, text: str) -> Message:
    return Message(role=role, content=(TextPart(text=text),))


def _said(model: str, result: ChatResult) -> Said:
    choice = result.choices[0]
    return Said(
        model=model,
        text=choice.text,
        reasoning=choice.reasoning,
        finish_reason=choice.reason.value,
        input_tokens=result.usage.input_tokens,
        output_tokens=result.usage.output_tokens,
    )
