"""Answers given again: who gets one, what it counts and costs, and what is never kept."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from sqlalchemy import select

from qwenbox.clock import SystemClock, TestClock
from qwenbox.engines.echo.engine import Echo, EchoConfig
from qwenbox.gateway.cache.cache import Cache
from qwenbox.gateway.cache.config import CacheConfig, Scope
from qwenbox.gateway.cache.database import DatabaseShelf
from qwenbox.gateway.cache.key import Names
from qwenbox.gateway.catalog import Catalog, ModelEntry
from qwenbox.gateway.journal.tables import USAGE
from qwenbox.gateway.limits import Tier
from qwenbox.gateway.settings import Settings
from qwenbox.terms.call import Call
from qwenbox.terms.caller import CachePolicy, Caller
from qwenbox.terms.chat import ChatRequest, Message, Role, Sampling, TextPart
from qwenbox.terms.engine import Events
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import ChatEvent, ChoiceFinished, Completed, FinishReason, TextDelta
from qwenbox.terms.model import Choice
from qwenbox.terms.wishes import CacheWish, Wishes
from support.gateways import CARD, Office, open_gateway

pytestmark = pytest.mark.anyio

CALLER = Caller(account_id="acc", key_id="key")
DEFAULTS = CacheConfig()


class Counted(Echo):
    """Echo that counts its calls, waits at a gate, and fails or filters on demand."""

    def __init__(self, **config: Any) -> None:
        super().__init__(EchoConfig(**config))
        self.calls = 0
        self.is_idle = anyio.Event()
        self.gate = anyio.Event()
        self.gate.set()
        self.after: int | None = None
        self.failure: ApiError | None = None
        self.reason: FinishReason | None = None

    def chat(self, request: ChatRequest) -> Events:
        return self._play(super().chat(request))

    @asynccontextmanager
    async def _play(self, inner: Events) -> AsyncGenerator[AsyncIterator[ChatEvent]]:
        self.calls += 1
        try:
            async with inner as heard:
                yield self._events(heard)
        finally:
            self.is_idle.set()

    async def _events(self, heard: AsyncIterator[ChatEvent]) -> AsyncGenerator[ChatEvent]:
        deltas = 0
        async for event in heard:
            deltas += isinstance(event, TextDelta)
            if self.after is None or deltas > self.after:
                await self.gate.wait()
                if self.failure is not None:
                    raise self.failure
            if isinstance(event, ChoiceFinished) and self.reason is not None:
                event = msgspec.structs.replace(event, reason=self.reason)
            yield event


class Kept(msgspec.Struct, frozen=True):
    office: Office
    cache: Cache
    shelf: DatabaseShelf
    clock: TestClock


@asynccontextmanager
async def open_cached(
    folder: Path, *engines: Echo, config: CacheConfig = DEFAULTS, tier: Tier | None = None, choice: Choice = Choice.ORDERED
) -> AsyncGenerator[Kept]:
    async with open_gateway(folder, *engines, tier=tier, choice=choice) as office, anyio.create_task_group() as tasks:
        clock = TestClock(SystemClock())
        shelf = DatabaseShelf(office.database, config, clock)
        cache = Cache(config, shelf, Settings(office.database), clock)
        office.gateway.remember(cache)
        tasks.start_soon(cache.follow)
        await anyio.wait_all_tasks_blocked()
        yield Kept(office, cache, shelf, clock)
        tasks.cancel_scope.cancel()


def call(id_: str = "call", *, text: str = "one two three", caller: Caller = CALLER, **options: Any) -> Call[ChatRequest]:
    wishes = Wishes(cache=options.pop("wish", CacheWish()), provoke=options.pop("provoke", ""))
    is_incremental = options.pop("is_incremental", True)
    options.setdefault("sampling", Sampling(temperature=0.0))
    request = ChatRequest(model="m", messages=(Message(role=Role.USER, content=(TextPart(text=text),)),), **options)
    return Call(id=id_, caller=caller, request=request, dialect="openai", arrived_at=0.0, is_incremental=is_incremental, wishes=wishes)


async def answer(kept: Kept, asked: Call[ChatRequest], deltas: int | None = None) -> tuple[str, list[ChatEvent]]:
    heard: list[ChatEvent] = []
    async with kept.office.gateway.chat(asked) as answer:
        async for event in answer.events:
            heard.append(event)
            if deltas is not None and sum(isinstance(one, TextDelta) for one in heard) == deltas:
                break
    return answer.cache, heard


async def rows(kept: Kept) -> dict[str, dict[str, Any]]:
    return {str(row["id"]): row for row in await kept.office.database.read(select(USAGE))}


async def entries(kept: Kept) -> int:
    await kept.shelf.flush()
    return (await kept.cache.state()).entries


async def test_hit_repeats_every_event_and_asks_no_engine(tmp_path: Path) -> None:
    engine = Counted()
    async with open_cached(tmp_path, engine) as kept:
        first = await answer(kept, call("a", n=2, top_logprobs=1))
        second = await answer(kept, call("b", n=2, top_logprobs=1))
        assert ("miss", "hit") == (first[0], second[0])
        assert first[1] == second[1]
        assert 1 == engine.calls


async def test_hit_counts_as_a_request_without_tokens_or_money(tmp_path: Path) -> None:
    async with open_cached(tmp_path, Counted(), tier=Tier(rpm=3, tpm=400)) as kept:
        asked = {"max_output_tokens": 300}
        await answer(kept, call("a", **asked))
        used = kept.office.counters.snapshot()[0].tokens
        # More than is left of the token window, were they counted.
        await answer(kept, call("b", **asked))
        await answer(kept, call("c", **asked))
        (window,) = kept.office.counters.snapshot()
        assert (3, used, 0) == (window.requests, window.tokens, window.open)
        with pytest.raises(ApiError) as refused:
            await answer(kept, call("d", **asked))
        assert ErrorKind.RATE_LIMITED is refused.value.kind
        found = await rows(kept)
        assert [False, True, True] == [bool(found[name]["is_cache_hit"]) for name in "abc"]
        assert found["a"]["cost_micros"] > 0
        assert (0, found["a"]["output_tokens"]) == (found["b"]["cost_micros"], found["b"]["output_tokens"])
        assert "d" not in found
        assert [] == await kept.office.ledger.check()


async def test_account_without_money_still_gets_what_is_kept(tmp_path: Path) -> None:
    async with open_cached(tmp_path, Counted()) as kept:
        await answer(kept, call("a"))
        broke = msgspec.structs.replace(CALLER, is_prepaid=True)
        assert "hit" == (await answer(kept, call("b", caller=broke)))[0]
        with pytest.raises(ApiError) as refused:
            await answer(kept, call("c", text="new", caller=broke))
        assert ErrorKind.OUT_OF_FUNDS is refused.value.kind


@pytest.mark.parametrize(
    "other",
    [
        {"text": "one two"},
        {"caller": Caller(account_id="other", key_id="key")},
        {"sampling": Sampling(temperature=0.0, seed=1)},
        {"wish": CacheWish(may_read=False)},
        {"provoke": "stall"},
        {"caller": msgspec.structs.replace(CALLER, cache=CachePolicy.OFF)},
    ],
)
async def test_another_call_never_hits(tmp_path: Path, other: dict[str, Any]) -> None:
    engine = Counted()
    async with open_cached(tmp_path, engine) as kept:
        await answer(kept, call("a"))
        state, _ = await answer(kept, call("b", **other))
        assert state != "hit"
        assert 2 == engine.calls


async def test_unseeded_call_is_left_alone_unless_its_key_wants_all(tmp_path: Path) -> None:
    engine = Counted()
    drawn = Sampling(temperature=1.0)
    async with open_cached(tmp_path, engine) as kept:
        states = [(await answer(kept, call(name, sampling=drawn)))[0] for name in "ab"]
        greedy = msgspec.structs.replace(CALLER, cache=CachePolicy.ALL)
        states += [(await answer(kept, call(name, sampling=drawn, caller=greedy)))[0] for name in "cd"]
        assert ["", "", "miss", "hit"] == states
        assert 3 == engine.calls


async def test_no_store_leaves_no_trace_and_no_cache_renews(tmp_path: Path) -> None:
    async with open_cached(tmp_path, Counted()) as kept:
        assert "bypass" == (await answer(kept, call("a", wish=CacheWish(may_read=False, may_store=False))))[0]
        assert 0 == await entries(kept)
        assert "bypass" == (await answer(kept, call("b", wish=CacheWish(may_read=False))))[0]
        assert "hit" == (await answer(kept, call("c")))[0]


async def test_max_age_refuses_what_is_older(tmp_path: Path) -> None:
    async with open_cached(tmp_path, Counted()) as kept:
        await answer(kept, call("a"))
        kept.clock.reach(100.0)
        assert "hit" == (await answer(kept, call("b", wish=CacheWish(max_age_s=200.0))))[0]
        assert "miss" == (await answer(kept, call("c", wish=CacheWish(max_age_s=50.0))))[0]
        assert "hit" == (await answer(kept, call("d", wish=CacheWish(max_age_s=50.0))))[0]


async def test_only_if_cached_asks_no_engine(tmp_path: Path) -> None:
    engine = Counted()
    wish = CacheWish(only_if_cached=True)
    async with open_cached(tmp_path, engine) as kept:
        with pytest.raises(ApiError) as refused:
            await answer(kept, call("a", wish=wish))
        assert (ErrorKind.NOT_FOUND, 0) == (refused.value.kind, engine.calls)
        await answer(kept, call("b"))
        assert "hit" == (await answer(kept, call("c", wish=wish)))[0]


async def test_answer_is_forgotten_after_its_time(tmp_path: Path) -> None:
    async with open_cached(tmp_path, Counted(), config=CacheConfig(ttl_s=60.0)) as kept:
        await answer(kept, call("a"))
        assert 1 == await entries(kept)
        kept.clock.reach(59.0)
        assert "hit" == (await answer(kept, call("b")))[0]
        kept.clock.reach(61.0)
        assert "miss" == (await answer(kept, call("c", text="another")))[0]
        assert 1 == await entries(kept)
        assert "miss" == (await answer(kept, call("d")))[0]


async def test_answer_outlives_its_process(tmp_path: Path) -> None:
    async with open_cached(tmp_path, Counted()) as kept:
        first = await answer(kept, call("a"))
    engine = Counted()
    async with open_cached(tmp_path, engine) as kept:
        assert ("hit", first[1]) == await answer(kept, call("b"))
        assert 0 == engine.calls


async def test_other_weights_never_hit(tmp_path: Path) -> None:
    async with open_cached(tmp_path, Counted()) as kept:
        await answer(kept, call("a"))
    async with open_cached(tmp_path, Counted(context_tokens=8192)) as kept:
        assert "miss" == (await answer(kept, call("b")))[0]


async def test_fallbacks_answer_is_kept_under_its_own_name(tmp_path: Path) -> None:
    down, other = Counted(), Counted(context_tokens=8192)
    down.failure = ApiError(ErrorKind.OVERLOADED)
    async with open_cached(tmp_path, down, other) as kept:
        assert "miss" == (await answer(kept, call("a")))[0]
        down.failure = None
        # The preferred one is back, and the other's answer is not taken for its own.
        assert "miss" == (await answer(kept, call("b")))[0]
        assert "hit" == (await answer(kept, call("c")))[0]
        found = await rows(kept)
        assert ["e1", "e0", "e0"] == [found[name]["deployment"] for name in "abc"]


@pytest.mark.parametrize("choice", [Choice.WEIGHTED, Choice.LEAST_BUSY, Choice.PREFIX])
async def test_replicas_have_each_others_answers_wherever_calls_go(tmp_path: Path, choice: Choice) -> None:
    """Of different identities, as servers at two addresses have."""
    one, two = Counted(), Counted(context_tokens=8192)
    async with open_cached(tmp_path, one, two, choice=choice) as kept:
        one.failure = ApiError(ErrorKind.OVERLOADED)
        assert "miss" == (await answer(kept, call("a")))[0]
        one.failure = None
        assert ["hit"] * 5 == [(await answer(kept, call(f"b{number}")))[0] for number in range(5)]
        await kept.shelf.flush()
        assert 1 == two.calls
    async with open_cached(tmp_path, Counted(), two, choice=choice) as kept:
        # From the shelf as well, and not when it is too old.
        assert ("miss", "hit") == ((await answer(kept, call("c", wish=CacheWish(max_age_s=0))))[0], (await answer(kept, call("d")))[0])


async def test_answers_of_a_deployment_that_is_a_last_resort_are_not_looked_for() -> None:
    entry = ModelEntry(name="m", card=CARD, deployments=("a", "b", "c"), choice=Choice.WEIGHTED, shares={"b": 0})
    sizes = {"a": 4096, "b": 8192, "c": 1024}
    engines = {name: Echo(EchoConfig(context_tokens=size)) for name, size in sizes.items()}
    model, names = Catalog((entry,), engines).every()[0], Names(Scope.ACCOUNT)
    request = call().request
    wanted = tuple(names.key(CALLER, model, model.deployments[place], request) for place in (0, 2))
    assert wanted == names.keys(CALLER, model, request)


@pytest.mark.parametrize("trouble", ["fails", "filtered", "hung up"])
async def test_what_did_not_end_well_is_never_kept(tmp_path: Path, trouble: str) -> None:
    engine = Counted()
    async with open_cached(tmp_path, engine) as kept:
        if trouble == "fails":
            engine.after, engine.failure = 1, ApiError(ErrorKind.ENGINE_FAILED)
            with pytest.raises(ApiError):
                await answer(kept, call("a"))
        elif trouble == "filtered":
            engine.reason = FinishReason.CONTENT_FILTER
            await answer(kept, call("a"))
        else:
            await answer(kept, call("a"), deltas=1)
        await anyio.wait_all_tasks_blocked()
        assert 0 == await entries(kept)
        engine.failure = engine.reason = engine.after = None
        assert "miss" == (await answer(kept, call("b")))[0]


async def test_purge_takes_one_model_or_account_or_all(tmp_path: Path) -> None:
    async with open_cached(tmp_path, Counted()) as kept:
        other = Caller(account_id="other", key_id="key")
        for name, caller in (("a", CALLER), ("b", other)):
            await answer(kept, call(name, caller=caller))
        assert 2 == await entries(kept)
        assert 0 == await kept.cache.purge(model="another")
        assert 1 == await kept.cache.purge(account_id="acc")
        assert "miss" == (await answer(kept, call("c")))[0]
        assert "hit" == (await answer(kept, call("d", caller=other)))[0]
        assert 2 == await entries(kept)
        assert 2 == await kept.cache.purge()
        assert "miss" == (await answer(kept, call("e", caller=other)))[0]


async def together(kept: Kept, calls: list[Call[ChatRequest]]) -> dict[str, tuple[str, list[ChatEvent]] | ApiError]:
    heard: dict[str, tuple[str, list[ChatEvent]] | ApiError] = {}

    async def ask(one: Call[ChatRequest]) -> None:
        try:
            heard[one.id] = await answer(kept, one)
        except ApiError as error:
            heard[one.id] = error

    async with anyio.create_task_group() as tasks:
        for one in calls:
            tasks.start_soon(ask, one)
    return heard


async def test_identical_calls_together_make_one_call(tmp_path: Path) -> None:
    engine = Counted(first_delay_s=0.01)
    async with open_cached(tmp_path, engine) as kept:
        heard = await together(kept, [call(f"call {number}") for number in range(50)])
        assert 1 == engine.calls
        assert ["hit"] * 49 + ["miss"] == sorted(state for state, _ in heard.values())  # type: ignore[misc]
        assert 1 == len({msgspec.json.encode(events) for _, events in heard.values()})  # type: ignore[misc]
        found = await rows(kept)
        assert (50, 49) == (len(found), sum(bool(row["is_cache_hit"]) for row in found.values()))
        assert 1 == sum(row["cost_micros"] > 0 for row in found.values())


async def test_followers_read_on_when_the_first_caller_leaves(tmp_path: Path) -> None:
    engine = Counted()
    engine.after, engine.gate = 1, anyio.Event()
    async with open_cached(tmp_path, engine) as kept, anyio.create_task_group() as tasks:
        heard: list[tuple[str, list[ChatEvent]]] = []
        is_heard = anyio.Event()

        async def follow() -> None:
            heard.append(await answer(kept, call("second")))
            is_heard.set()

        async with kept.office.gateway.chat(call("first")) as leading:
            await anext(leading.events)
            tasks.start_soon(follow)
            await anyio.wait_all_tasks_blocked()
        engine.gate.set()
        with anyio.fail_after(60):
            await is_heard.wait()
        ((state, events),) = heard
        assert ("hit", True, 1) == (state, isinstance(events[-1], Completed), engine.calls)
        found = await rows(kept)
        assert ("completed", "completed") == (found["first"]["outcome"], found["second"]["outcome"])
        assert (True, 0) == (found["first"]["cost_micros"] > 0, found["second"]["cost_micros"])


async def test_flight_ends_as_a_hang_up_when_its_last_reader_leaves(tmp_path: Path) -> None:
    engine = Counted()
    engine.after, engine.gate = 2, anyio.Event()
    async with open_cached(tmp_path, engine) as kept:
        await answer(kept, call("a"), deltas=2)
        with anyio.fail_after(60):
            await engine.is_idle.wait()
            await anyio.wait_all_tasks_blocked()
        row = (await rows(kept))["a"]
        assert ("hung_up", True) == (row["outcome"], row["cost_micros"] > 0)
        assert 0 == await entries(kept)


async def test_failure_before_the_first_event_is_shared(tmp_path: Path) -> None:
    engine = Counted()
    engine.gate, engine.failure = anyio.Event(), ApiError(ErrorKind.ENGINE_FAILED, "gone")
    async with open_cached(tmp_path, engine) as kept:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_open_soon, engine.gate)
            heard = await together(kept, [call(f"call {number}") for number in range(5)])
        assert 1 == engine.calls
        assert {"gone"} == {error.message for error in heard.values()}  # type: ignore[union-attr]
        found = await rows(kept)
        assert (5, {"failed"}, 0) == (
            len(found),
            {row["outcome"] for row in found.values()},
            sum(row["cost_micros"] for row in found.values()),
        )


async def _open_soon(gate: anyio.Event) -> None:
    await anyio.wait_all_tasks_blocked()
    gate.set()


async def test_follower_leads_when_the_leader_is_refused(tmp_path: Path) -> None:
    engine = Counted(first_delay_s=0.01)
    async with open_cached(tmp_path, engine) as kept:
        broke = msgspec.structs.replace(CALLER, is_prepaid=True)
        heard = await together(kept, [call("a", caller=broke), call("b", caller=broke), call("c"), call("d", caller=broke)])
        kinds = [heard[name].kind if isinstance(heard[name], ApiError) else heard[name][0] for name in "abcd"]  # type: ignore[index,union-attr]
        assert [ErrorKind.OUT_OF_FUNDS, ErrorKind.OUT_OF_FUNDS, "miss", "hit"] == kinds
        assert 1 == engine.calls


async def test_answer_cut_by_ones_own_limits_is_nobody_elses(tmp_path: Path) -> None:
    engine = Counted(first_delay_s=0.01)
    words = " ".join(f"w{number}" for number in range(600))
    async with open_cached(tmp_path, engine, tier=Tier(tpm=1_200)) as kept:
        free = msgspec.structs.replace(CALLER, key_id="second")
        heard = await together(kept, [call("a", text=words), call("b", text="one", caller=free)])
        assert FinishReason.LENGTH is next(e.reason for e in heard["a"][1] if isinstance(e, ChoiceFinished))  # type: ignore[index]
        assert 1 == await entries(kept)
