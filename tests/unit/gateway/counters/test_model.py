"""Counters of one process against the obvious way to count: keep everything, look at everything."""

import anyio
import anyio.lowlevel
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from qwenbox.gateway.counters.base import Ask, CountersConfig, Lease, Used, Window
from qwenbox.gateway.counters.memory import MemoryCounters
from qwenbox.terms.errors import ApiError, ErrorKind
from support.asks import Bank, ask, balance, window
from support.clocks import StillClock
from support.stepping import now as done

WINDOW_S = 10.0
ACCOUNT = window("account/m", requests=6, tokens=100, concurrency=4)
KEY = window("key/m", requests=4, tokens=60)
OTHER = window("other/m", tokens=50)


class Admission:
    """One admission as the model remembers it, for ever."""

    def __init__(self, at: float, tokens: int, windows: tuple[Window, ...]) -> None:
        self.at = at
        self.tokens = tokens
        self.windows = windows
        self.is_open = True


class Model(RuleBasedStateMachine):
    """Times are multiples of 1/8 s, so that nothing is rounded."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = StillClock()
        self.counting = MemoryCounters(CountersConfig(window_s=WINDOW_S), self.clock, Bank().load)
        self.all: list[Admission] = []
        self.open: list[tuple[Lease, Admission]] = []

    @rule(eighths=st.integers(0, 100))
    def time_passes(self, eighths: int) -> None:
        self.clock.advance(eighths / 8)

    @rule(
        windows=st.sampled_from([(ACCOUNT,), (ACCOUNT, KEY), (OTHER,), (ACCOUNT, OTHER)]),
        tokens=st.tuples(st.integers(0, 40), st.integers(0, 70)),
    )
    def reserve(self, windows: tuple[Window, ...], tokens: tuple[int, int]) -> None:
        wanted = ask(*windows, tokens=tokens)
        expected = self.expected(wanted, sum(tokens))
        try:
            lease = done(self.counting.reserve(wanted))
        except ApiError as error:
            assert error.kind in expected, (error.kind, expected)
            is_final = error.kind is ErrorKind.INVALID_REQUEST
            assert is_final == (error.retry_after_s is None)
            assert is_final or 0 < (error.retry_after_s or 0.0) < 5.1 * WINDOW_S
            return
        assert not expected
        assert lease.output_tokens == tokens[1]
        admission = Admission(self.clock.steady_s, sum(tokens), windows)
        self.all.append(admission)
        self.open.append((lease, admission))

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        lease, admission = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        used = data.draw(st.integers(0, admission.tokens))
        done(self.counting.settle(lease, Used(tokens=used)))
        done(self.counting.settle(lease, Used(tokens=0)))
        admission.tokens, admission.is_open = used, False

    @invariant()
    def counts_are_the_models(self) -> None:
        live = {one.id: (one.requests, one.tokens, one.open) for one in self.counting.snapshot()}
        expected = {one.id: self.held(one) for one in (ACCOUNT, KEY, OTHER)}
        assert live == {name: held for name, held in expected.items() if held[0] or held[2]}

    def held(self, one: Window) -> tuple[int, int, int]:
        mine = [admission for admission in self.all if one in admission.windows]
        inside = [admission for admission in mine if self.clock.steady_s - admission.at <= WINDOW_S]
        return len(inside), sum(admission.tokens for admission in inside), sum(admission.is_open for admission in mine)

    def expected(self, wanted: Ask, tokens: int) -> set[ErrorKind]:
        """The refusals that fit; empty if the call has to be admitted."""
        kinds: set[ErrorKind] = set()
        for one in wanted.windows:
            requests, used, is_open = self.held(one)
            if one.tokens is not None and tokens > one.tokens:
                return {ErrorKind.INVALID_REQUEST}
            if one.tokens is not None and used + tokens > one.tokens:
                kinds.add(ErrorKind.QUOTA_EXHAUSTED)
            if one.requests is not None and requests >= one.requests:
                kinds.add(ErrorKind.RATE_LIMITED)
            if one.concurrency is not None and is_open >= one.concurrency:
                kinds.add(ErrorKind.RATE_LIMITED)
        return kinds


Model.TestCase.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
TestCountersAgainstTheModel = Model.TestCase


@settings(max_examples=60, deadline=None)
@given(
    amounts=st.tuples(st.integers(0, 300), st.integers(0, 300)),
    calls=st.lists(
        st.tuples(
            st.sampled_from([("a",), ("b",), ("a", "b")]), st.integers(0, 20), st.integers(1, 80), st.floats(0, 1), st.integers(0, 6)
        ),
        max_size=30,
    ),
)
def test_no_purse_is_ever_overdrawn_whatever_happens_at_once(
    amounts: tuple[int, int], calls: list[tuple[tuple[str, ...], int, int, float, int]]
) -> None:
    """Calls use a part of what they were granted after some turns of the loop; every seventh hangs up."""
    bank = Bank(a=amounts[0], b=amounts[1])
    counting = MemoryCounters(CountersConfig(wait_s=5.0), StillClock(), bank.load)

    async def call(purses: tuple[str, ...], tokens: tuple[int, int], share: float, turns: int) -> None:
        with anyio.CancelScope() as scope:
            if turns == 6:
                scope.deadline = anyio.current_time()
            try:
                lease = await counting.reserve(ask(*map(balance, purses), tokens=tokens))
            except ApiError as error:
                assert error.kind is ErrorKind.OUT_OF_FUNDS
                return
            with anyio.CancelScope(shield=True):
                for _ in range(turns):
                    await anyio.lowlevel.checkpoint()
                used = bank.charge(lease, tokens[0] + round(lease.output_tokens * share))
                assert all(state.amount_micros >= 0 for state in bank.states.values())
                await counting.settle(lease, used)

    async def run() -> None:
        async with anyio.create_task_group() as tasks:
            for purses, input_tokens, output_tokens, share, turns in calls:
                tasks.start_soon(call, purses, (input_tokens, output_tokens), share, turns)
        for name, state in bank.states.items():
            if state.amount_micros > 1:
                # Nothing is held any more: one call gets all there is.
                lease = await counting.reserve(ask(balance(name), tokens=(1, 1_000)))
                assert lease.held_micros == state.amount_micros

    anyio.run(run)
