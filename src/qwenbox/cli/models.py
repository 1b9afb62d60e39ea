"""This is where models are listed, and a user's own are added and removed."""

import time
from pathlib import Path
from typing import Annotated

import anyio
import msgspec
import typer
from msgspec.structs import replace
from rich.table import Table

from qwenbox.cli.console import emit, lay_out, out, settings, told
from qwenbox.cli.own_models import OwnModels
from qwenbox.cli.pull import find_model, watched, weights_at
from qwenbox.config import Config
from qwenbox.engines import gguf
from qwenbox.engines.reader.engine import ReaderConfig, read_by
from qwenbox.gateway.catalog import ModelEntry
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.model import Capability, ModelCard, Price
from qwenbox.weights.entry import NAME, Presence, WeightsEntry, WeightsState
from qwenbox.weights.store import WeightsStore

app = typer.Typer(
    help="List models and what answers them; add your own GGUF files. Works with and without a running box.", invoke_without_command=True
)

DEFAULT_CONTEXT_TOKENS = 32_768

Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


class Answers(msgspec.Struct, frozen=True, kw_only=True):
    """One deployment of a model. state: for people. The rest is None where somebody else's server, or echo, answers."""

    engine: str
    kind: str
    state: str
    weights: str | None = None
    title: str | None = None
    presence: Presence | None = None
    fraction: float | None = None
    path: str | None = None


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """One model of `--json`. price: of today, None if it costs nothing. is_own: added by `qwenbox models add`."""

    name: str
    aliases: tuple[str, ...]
    card: ModelCard
    price: Price | None
    is_own: bool
    answered_by: tuple[Answers, ...]


@app.callback()
def models(context: typer.Context, as_json: Json = False) -> None:
    """List models and what answers them; add your own GGUF files. Works with and without a running box."""
    if context.invoked_subcommand is None:
        list_models(as_json)


@app.command("list")
def list_models(as_json: Json = False) -> None:
    """List every model: which weights answer, whether they are here, context and price."""
    with told():
        listed = _listed(settings())
    if as_json:
        emit(listed)
        return
    table = Table("model", "answered by", "state", "context", "output", "price in / out", box=None)
    for one in listed:
        weights, state = _summary(one.answered_by)
        table.add_row(one.name, weights, state, f"{one.card.context_tokens:,}", f"{one.card.output_limit_tokens:,}", _price(one.price))
    lay_out(table)
    out.print("\nPrices are per million tokens, of a short input. Aliases, paths and all prices: `qwenbox models show NAME`.")
    if missing := [one.name for one in listed if one.answered_by and one.answered_by[0].presence in (Presence.MISSING, Presence.PARTIAL)]:
        out.print(f"Weights that are not here: `qwenbox pull NAME` for {', '.join(missing)}.")


@app.command()
def show(name: Annotated[str, typer.Argument(help="A model or one of its aliases.")], as_json: Json = False) -> None:
    """Show one model: names, card, and everything that can answer it, best first."""
    with told():
        config = settings()
        model = _existing(config, name)
        one = next(row for row in _listed(config) if row.name == model.name)
    if as_json:
        emit(one)
        return
    card = one.card
    out.print(f"[bold]{one.name}[/bold]  {card.description}", f"aliases       {', '.join(one.aliases) or 'none'}", sep="\n")
    out.print(f"context       {card.context_tokens:,} tokens, {card.output_limit_tokens:,} of them output at most")
    out.print(f"can           {', '.join(sorted(card.capabilities))}")
    for line in _prices(one.price):
        out.print(line)
    for answers in one.answered_by:
        out.print(f"answered by   {answers.title or answers.kind} [{answers.engine}]: {answers.state}", markup=False)
        if answers.path:
            out.print(f"              {answers.path}", markup=False)


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="The public name callers will use.")],
    file: Annotated[Path | None, typer.Option("--gguf", help="A GGUF file on this machine; it is used where it lies.")] = None,
    url: Annotated[str | None, typer.Option(help="An http(s) address of a GGUF file, fetched by `qwenbox pull NAME`.")] = None,
    sha256: Annotated[str, typer.Option(help="What the file's sha256 must be.")] = "",
    alias: Annotated[list[str] | None, typer.Option(help="Another public name; may be given more than once.")] = None,
    context: Annotated[
        int | None, typer.Option(min=1, help="Context in tokens.", show_default="the file's own, 32768 for an address")
    ] = None,
) -> None:
    """Add a model of your own from a GGUF file or an address. A running box knows it after its next start.

    Examples: `qwenbox models add mine --gguf ~/mine-q4.gguf` · `qwenbox models add mine --url https://example.org/mine.gguf --sha256 …`
    """
    with told():
        config = settings()
        _refuse_taken(config, (name, *(alias or ())))
        if (file is None) == (url is None):
            raise ApiError(ErrorKind.INVALID_REQUEST, "Give exactly one of --gguf PATH and --url ADDRESS.")
        entry = _entry(name, file, url, sha256.lower())
        if file is not None:
            _check_hash(config, name, entry)
        card = _card(Path(entry.path) if file else None, context)
        model = ModelEntry(name=name, aliases=tuple(alias or ()), card=card, deployments=(name,))
        OwnModels(config.home).add(model, entry)
    out.print(f"Added [bold]{name}[/bold] ({card.context_tokens:,} tokens of context).")
    if url is not None:
        out.print(f"Its weights are not here yet: qwenbox pull {name}")


@app.command()
def remove(name: Annotated[str, typer.Argument(help="A model that `qwenbox models add` made.")]) -> None:
    """Forget a model of your own and delete what was fetched for it; a file you named with --gguf stays."""
    with told():
        config = settings()
        own = OwnModels(config.home)
        if name not in own.names:
            raise ApiError(
                ErrorKind.MODEL_NOT_FOUND, f"{name!r} is none of yours. Yours are: {', '.join(own.names) or 'none'}.", param=name
            )
        anyio.run(WeightsStore(config.home, config.weights, config.store).remove, name)
        own.remove(name)
    out.print(f"Removed {name}.")


def _listed(config: Config) -> tuple[Listed, ...]:
    store = WeightsStore(config.home, config.weights, config.store)
    own = OwnModels(config.home).names
    return tuple(
        Listed(
            name=model.name,
            aliases=model.aliases,
            card=model.card,
            price=_today(config, model.name),
            is_own=model.name in own,
            answered_by=tuple(_answers(config, store, engine) for engine in model.deployments),
        )
        for model in config.model
    )


def _today(config: Config, model: str) -> Price | None:
    tariff = config.prices.tariff(model, time.time())
    return tariff.price if tariff.version else None


def _price(price: Price | None) -> str:
    if price is None:
        return "free"
    tier = price.tiers[0]
    if tier.picture_micros is not None:
        return f"{tier.picture_micros / 1e6:g} {price.currency} a picture"
    return f"{tier.input_micros / 1e6:g} / {tier.output_micros / 1e6:g} {price.currency}"


def _prices(price: Price | None) -> list[str]:
    if price is None:
        return ["price         none in the book: free"]
    lines: list[str] = []
    for tier in price.tiers:
        if tier.picture_micros is not None:
            lines.append(f"{'price' if not lines else '':<14}{tier.picture_micros / 1e6:g} {price.currency} a picture")
            continue
        thinking = "" if tier.reasoning_micros is None else f", thinking {tier.reasoning_micros / 1e6:g}"
        upto = "" if tier.up_to_tokens is None else f", input up to {tier.up_to_tokens:,} tokens"
        amounts = f"{tier.input_micros / 1e6:g} in, {tier.output_micros / 1e6:g} out{thinking} {price.currency} per million tokens{upto}"
        lines.append(f"{'price' if not lines else '':<14}{amounts}")
    return lines


def _summary(answered_by: tuple[Answers, ...]) -> tuple[str, str]:
    """Who answers, the best of those that can, and in one word whether they can."""
    if not answered_by:
        return "nothing", "[red]no deployment[/red]"
    first = next((one for one in answered_by if one.presence in (None, Presence.HERE)), answered_by[0])
    share = f" {first.fraction:.0%}" if first.fraction and first.presence is not Presence.HERE else ""
    style = "green" if first.presence in (None, Presence.HERE) else "yellow"
    return first.title or first.kind, f"[{style}]{first.presence or 'ready'}{share}[/{style}]"


def _answers(config: Config, store: WeightsStore, engine: str) -> Answers:
    found = config.engine[engine]
    kind, name = str(found.__struct_config__.tag), weights_at(config, engine)
    if isinstance(found, ReaderConfig):
        inner = _answers(config, store, found.text)
        return replace(inner, engine=engine, kind=kind, title=read_by(inner.title or inner.kind))
    if name is None:
        return Answers(engine=engine, kind=kind, state="no weights needed")
    state = store.state(name)
    return Answers(
        engine=engine,
        kind=kind,
        weights=name,
        title=store.entry(name).title,
        presence=state.presence,
        fraction=state.fraction,
        path=str(store.place(name)),
        state=_words(name, state),
    )


def _words(name: str, state: WeightsState) -> str:
    share = f" {state.fraction:.0%}" if state.fraction is not None else ""
    match state.presence:
        case Presence.HERE:
            return "here"
        case Presence.FETCHING:
            return f"being fetched{share}"
        case Presence.PARTIAL:
            return f"{share.strip() or 'partly'} here: qwenbox pull {name}"
        case Presence.MISSING:
            return f"missing: qwenbox pull {name}"


def _existing(config: Config, name: str) -> ModelEntry:
    model = find_model(config, name)
    if model is None:
        known = ", ".join(entry.name for entry in config.model)
        raise ApiError(ErrorKind.MODEL_NOT_FOUND, f"No model is called {name!r}. There are: {known}.", param=name)
    return model


def _refuse_taken(config: Config, names: tuple[str, ...]) -> None:
    for name in names:
        if not NAME.fullmatch(name):
            raise ApiError(ErrorKind.INVALID_REQUEST, f"{name!r} can't be a name: letters, digits, dots, dashes and underscores only.")
        if find_model(config, name) or name in config.weights or name in config.engine:
            raise ApiError(ErrorKind.CONFLICT, f"{name!r} is taken. Choose another name, or `qwenbox models remove` it if it is yours.")


def _entry(name: str, file: Path | None, url: str | None, sha256: str) -> WeightsEntry:
    try:
        if file is not None:
            return WeightsEntry(title=file.stem, path=str(file.expanduser().resolve()), sha256=sha256)
        return WeightsEntry(title=name, url=url or "", file=f"{name}.gguf", sha256=sha256)
    except ValueError as error:
        raise ApiError(ErrorKind.INVALID_REQUEST, f"{error}.") from error


def _check_hash(config: Config, name: str, entry: WeightsEntry) -> None:
    """Hash the file now if the user said what it must be; the catalog never names a file that is known to be wrong."""
    if entry.sha256:
        store = WeightsStore(config.home, {name: entry}, config.store)
        with watched(entry.title) as progress:
            anyio.run(store.pull, name, progress)


def _card(path: Path | None, context: int | None) -> ModelCard:
    """What the file says about itself; of an address nothing is known before it is fetched.

    Without a wish the context stops at DEFAULT_CONTEXT_TOKENS: what long ones need in memory should be somebody's decision.
    """
    capabilities = {Capability.CHAT, Capability.COMPLETION, Capability.JSON, Capability.LOGPROBS}
    if path is None:
        return ModelCard(context_tokens=context or DEFAULT_CONTEXT_TOKENS, capabilities=frozenset(capabilities | {Capability.TOOLS}))
    held = gguf.read(path)
    if context and context > held.context_tokens:
        raise ApiError(ErrorKind.INVALID_REQUEST, f"The file was trained for {held.context_tokens:,} tokens, not {context:,}.")
    if "tools" in held.chat_template:
        capabilities.add(Capability.TOOLS)
    if "<think>" in held.chat_template:
        capabilities.add(Capability.THINKING)
    tokens = context or min(held.context_tokens, DEFAULT_CONTEXT_TOKENS)
    return ModelCard(context_tokens=tokens, capabilities=frozenset(capabilities))
