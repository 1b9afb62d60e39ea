"""This is where prompts are counted and priced before they are sent, with the weights' own vocabulary and template."""

import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import anyio
import msgspec
import typer
from rich.bar import Bar
from rich.table import Table
from rich.text import Text

from qwenbox.app.catalog import open_catalog
from qwenbox.cli.amounts import units
from qwenbox.cli.console import emit, lay_out, out, settings, told
from qwenbox.cli.prompts import Reading, read
from qwenbox.clock import SystemClock
from qwenbox.config import Config
from qwenbox.gateway.catalog import ANY_MODEL, Catalog, Model, TextRequest, complete_chat, complete_prompt, fit
from qwenbox.gateway.counting import about_input
from qwenbox.gateway.estimate import text_tokens
from qwenbox.terms.call import Lane
from qwenbox.terms.caller import Caller
from qwenbox.terms.chat import ChatRequest, Message
from qwenbox.terms.errors import ApiError
from qwenbox.terms.usage import Usage

_NOBODY = Caller(account_id="", key_id="")
# Longer conversations get their shares estimated: each exact share is a count of the conversation up to there.
_MOST_EXACT = 200
_SHOWN_CHARACTERS = 40


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """What one part of a prompt takes. role: a message's, or "tools", or "template" for what belongs to no message."""

    role: str
    text: str
    tokens: int


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """What a model would take for it. is_exact: its engine counts; else by another vocabulary, or estimated.

    input_micros: the price of the prompt. most_micros: with the longest answer it may have. context_left_tokens: of the model's context.
    problem: why it would refuse, "" if it would not.
    """

    model: str
    input_tokens: int | None = None
    is_exact: bool = False
    input_micros: int = 0
    most_micros: int = 0
    currency: str = ""
    context_left_tokens: int | None = None
    problem: str = ""


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """One prompt. shares: its parts in order. offers: every model's, the one asked for first."""

    model: str
    input_tokens: int
    is_exact: bool
    shares: tuple[Share, ...]
    offers: tuple[Offer, ...]


def tokens(
    file: Annotated[
        str, typer.Argument(help="A prompt as text, a request's JSON (of either dialect), messages, or JSON lines of them; `-`: piped in.")
    ],
    model: Annotated[str, typer.Option("--model", "-m", help="Count for this model; nothing: as the prompt says, else the first.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts: one object for each prompt.")] = False,
) -> None:
    """Count a prompt's tokens and see what it would cost, before it is sent. Works with and without a running box.

    The count is what the call will report as its input tokens: template and tools are in it. What a key's own policies
    (`qwenbox keys set --history-tokens`) would leave out is not taken off.

    Examples: `qwenbox tokens prompt.txt` · `qwenbox tokens request.json -m qwen-plus` · `cat batch.jsonl | qwenbox tokens - --json`
    """
    config = settings()
    name = model or (config.model[0].name if config.model and config.model[0].name != ANY_MODEL else "qwen-turbo")
    with told():
        counted = anyio.run(_count, config, _data(file), Reading(model=name, is_model_forced=bool(model), compat=config.compat))
    if as_json:
        for each in counted:
            emit(each)
    elif len(counted) == 1:
        _show(counted[0])
    else:
        _show_lines(counted)


async def _count(config: Config, data: bytes, reading: Reading) -> list[Counted]:
    requests = read(data, reading)
    async with open_catalog(config) as catalog:
        return [await _Counting(config, catalog, request).counted(has_parts=len(requests) == 1) for request in requests]


class _Counting:
    """One prompt, counted for the models of a box."""

    def __init__(self, config: Config, catalog: Catalog, request: TextRequest) -> None:
        self._config = config
        self._catalog = catalog
        self._request = request

    async def counted(self, *, has_parts: bool) -> Counted:
        """has_parts: with the messages' shares and other models' offers. Raises ApiError as the call would."""
        name = self._request.model
        own = await self._offer(name, self._catalog.resolve(name, _NOBODY))
        return Counted(
            model=name,
            input_tokens=own.input_tokens or 0,
            is_exact=own.is_exact,
            shares=await self._shares(own.input_tokens or 0) if has_parts else (),
            offers=(own, *(await self._others(name))) if has_parts else (own,),
        )

    async def _others(self, name: str) -> list[Offer]:
        asked = self._catalog.find(name)
        offers: list[Offer] = []
        for model in self._catalog.every():
            if model is not asked and model.entry.name != ANY_MODEL and model.entry.card.is_text:
                try:
                    offers.append(await self._offer(model.entry.name, model))
                except ApiError as error:
                    offers.append(Offer(model=model.entry.name, problem=error.message or error.kind.value))
        return offers

    async def _offer(self, name: str, model: Model) -> Offer:
        request = _complete(msgspec.structs.replace(self._request, model=name), model, self._config)
        input_tokens = await about_input(model, request)
        card = model.entry.card
        problem = ""
        output_tokens = 0
        try:
            output_tokens = fit(request, input_tokens, card) * request.n
        except ApiError as error:
            problem = error.message
        tariff = self._config.prices.tariff(name, SystemClock().now())
        costs = [
            tariff.cost_micros(Usage(input_tokens=input_tokens, output_tokens=count), Lane.INTERACTIVE) for count in (0, output_tokens)
        ]
        return Offer(
            model=name,
            input_tokens=input_tokens,
            is_exact=model.deployments[0].counter is not None,
            input_micros=costs[0],
            most_micros=costs[1],
            currency=tariff.currency,
            context_left_tokens=max(0, card.context_tokens - input_tokens),
            problem=problem,
        )

    async def _shares(self, input_tokens: int) -> tuple[Share, ...]:
        """What each message adds to those before it; the rest is the template's."""
        request = self._request
        if not isinstance(request, ChatRequest):
            return (Share(role="prompt", text=_shown(request.prompt), tokens=input_tokens),)
        model = self._catalog.resolve(request.model, _NOBODY)
        complete = _complete(request, model, self._config)
        if not isinstance(complete, ChatRequest):
            return ()
        tools_tokens, sizes = await _sizes(model, complete, input_tokens)
        shares = [
            Share(role=each.role.value, text=_shown(_said(each)), tokens=size) for each, size in zip(request.messages, sizes, strict=True)
        ]
        if request.tools:
            shares.append(Share(role="tools", text=", ".join(tool.name for tool in request.tools), tokens=tools_tokens))
        rest = input_tokens - sum(share.tokens for share in shares)
        return (*shares, Share(role="template", text="", tokens=rest)) if rest else tuple(shares)


async def _sizes(model: Model, request: ChatRequest, input_tokens: int) -> tuple[int, list[int]]:
    """Tokens of the tools, and of each message."""
    messages = request.messages
    bare = msgspec.structs.replace(request, tools=())
    try:
        if len(messages) > _MOST_EXACT:
            return _estimated(messages, input_tokens)
        ends = [await about_input(model, msgspec.structs.replace(bare, messages=messages[: end + 1])) for end in range(len(messages))]
        # What the first message has twice is its own; the rest of its count is the template's.
        twice = await about_input(model, msgspec.structs.replace(bare, messages=(messages[0], messages[0])))
    except ApiError:
        # Some templates show no beginnings of a conversation.
        return _estimated(messages, input_tokens)
    first = min(ends[0], max(0, twice - ends[0]))
    return input_tokens - ends[-1], [first, *(after - before for before, after in pairwise(ends))]


def _estimated(messages: Sequence[Message], input_tokens: int) -> tuple[int, list[int]]:
    sizes = [text_tokens(_said(message)) for message in messages]
    scale = min(1.0, input_tokens / max(1, sum(sizes)))
    return 0, [int(size * scale) for size in sizes]


def _complete(request: TextRequest, model: Model, config: Config) -> TextRequest:
    if isinstance(request, ChatRequest):
        return complete_chat(request, model.entry.card, _NOBODY, config.compat)
    return complete_prompt(request, model.entry.card, _NOBODY, config.compat)


def _data(file: str) -> bytes:
    if file == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise typer.BadParameter(f"{file} cannot be read: {error.strerror}") from error


def _said(message: Message) -> str:
    calls = (f"{call.name}({call.arguments})" for call in message.tool_calls)
    return " ".join(filter(None, (message.reasoning, message.text, *calls)))


def _shown(text: str) -> str:
    line = " ".join(text[: _SHOWN_CHARACTERS * 4].split())
    return line if len(line) <= _SHOWN_CHARACTERS else f"{line[: _SHOWN_CHARACTERS - 1]}…"


def _show(counted: Counted) -> None:
    about = "" if counted.is_exact else "about "
    out.print(f"{about}[bold]{counted.input_tokens:,}[/bold] tokens for {counted.model}")
    parts = Table("", "", box=None, show_header=False)
    parts.add_column(justify="right")
    parts.add_column(justify="right")
    parts.add_column()
    most = max(1, *(share.tokens for share in counted.shares))
    for share in counted.shares:
        percent = f"{100 * share.tokens / max(1, counted.input_tokens):.0f} %"
        parts.add_row(share.role, Text(share.text), f"{share.tokens:,}", percent, Bar(most, 0, share.tokens, width=24, color="cyan"))
    lay_out(parts)
    table = Table("model", box=None)
    for name in ("tokens", "the prompt", "at most", "context left", ""):
        table.add_column(name, justify="right")
    for offer in counted.offers:
        if offer.input_tokens is None:
            table.add_row(offer.model, "", "", "", "", offer.problem)
            continue
        amounts = [f"{units(amount)} {offer.currency}" for amount in (offer.input_micros, offer.most_micros)]
        mark = "" if offer.is_exact else "≈ "
        table.add_row(offer.model, f"{mark}{offer.input_tokens:,}", *amounts, f"{offer.context_left_tokens:,}", offer.problem)
    lay_out(table)


def _show_lines(counted: Sequence[Counted]) -> None:
    table = Table("prompt", "model", box=None)
    for name in ("tokens", "price", "at most", ""):
        table.add_column(name, justify="right")
    for number, each in enumerate(counted, 1):
        own = each.offers[0]
        mark = "" if each.is_exact else "≈ "
        table.add_row(str(number), each.model, f"{mark}{each.input_tokens:,}", units(own.input_micros), units(own.most_micros), own.problem)
    lay_out(table)
    owns = [each.offers[0] for each in counted]
    sums = (sum(each.input_tokens for each in counted), sum(own.input_micros for own in owns), sum(own.most_micros for own in owns))
    out.print(f"{len(counted)} prompts, {sums[0]:,} tokens, {units(sums[1])} {owns[0].currency}, with answers at most {units(sums[2])}")
