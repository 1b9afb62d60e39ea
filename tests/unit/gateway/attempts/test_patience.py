"""Four timeouts, each its own error; whose they are decides whether another attempt follows."""

import asyncio
from collections.abc import AsyncIterator

import anyio
import anyio.lowlevel
import pytest

from qwenbox.gateway.attempts import patience
from qwenbox.gateway.attempts.patience import Patient, Watch
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import ChatEvent, Started, TextDelta
from qwenbox.terms.wishes import NO_PATIENCE, Patience

pytestmark = pytest.mark.anyio

SHORT_S = 0.02
# What a busy machine takes from a process now and then is less.
CALM_S = 0.5
LONG_S = 60.0


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


async def telling(*pauses_s: float) -> AsyncIterator[ChatEvent]:
    """A piece after each pause, and then silence."""
    for pause_s in pauses_s:
        await anyio.sleep(pause_s)
        yield TextDelta(text="x", tokens=1)
    await anyio.sleep_forever()


def watching(own: Patience = NO_PATIENCE, model: Patience = NO_PATIENCE) -> Watch:
    watch = patience.watch(own, model)
    assert watch is not None
    watch.sent()
    return watch


async def heard(watch: Watch, *pauses_s: float) -> ApiError:
    """How the events end for whoever waits with this patience."""
    broken: list[ApiError] = []
    events = Patient(Started(input_tokens=1), telling(*pauses_s), watch, broken.append)
    with pytest.raises(ApiError) as failed:
        async for _ in events:
            pass
    watch.close()
    assert [failed.value] == broken
    return failed.value


async def test_nothing_is_watched_when_nothing_is_set():
    assert patience.watch(NO_PATIENCE, NO_PATIENCE) is None


async def test_first_token_runs_out_though_the_answer_has_begun():
    error = await heard(watching(Patience(first_token_s=SHORT_S)))
    assert (ErrorKind.TIMEOUT, "first_token_s") == (error.kind, error.param)
    assert "0.02 s" in error.message


async def test_between_tokens_runs_out_after_the_first_one():
    error = await heard(watching(Patience(first_token_s=LONG_S, between_tokens_s=SHORT_S)), 0, 0)
    assert "between_tokens_s" == error.param
    assert "0.02 s" in error.message


async def test_between_tokens_does_not_run_before_the_first_one():
    error = await heard(watching(Patience(between_tokens_s=SHORT_S, total_s=SHORT_S * 5)))
    assert "total_s" == error.param


async def test_total_runs_out_while_tokens_keep_coming():
    error = await heard(watching(Patience(total_s=SHORT_S * 5, between_tokens_s=LONG_S)), *[SHORT_S] * 1_000)
    assert "total_s" == error.param
    assert "0.1 s" in error.message
    assert error.is_final


async def test_the_callers_wish_wins_over_the_models():
    error = await heard(watching(Patience(first_token_s=SHORT_S), Patience(first_token_s=LONG_S)))
    assert "0.02 s" in error.message


async def test_another_attempt_may_follow_the_models_first_token_but_not_the_callers():
    assert not (await heard(watching(model=Patience(first_token_s=SHORT_S)))).is_final
    assert (await heard(watching(own=Patience(first_token_s=SHORT_S)))).is_final


async def test_the_callers_first_token_counts_from_the_first_attempt():
    watch = watching(Patience(first_token_s=SHORT_S))
    await anyio.sleep(SHORT_S)
    watch.sent()
    with pytest.raises(ApiError) as failed:
        await watch.hold(anyio.sleep_forever)
    assert failed.value.param == "first_token_s"


async def test_total_is_over_at_the_next_wait_when_its_caller_read_slowly():
    watch = watching(Patience(total_s=CALM_S))
    await watch.hold(lambda: anyio.lowlevel.checkpoint())
    await anyio.sleep(CALM_S * 1.2)
    with pytest.raises(ApiError) as failed:
        await watch.hold(lambda: anyio.lowlevel.checkpoint())
    assert failed.value.param == "total_s"


async def test_silence_while_the_caller_is_written_to_is_not_the_engines():
    watch = watching(Patience(between_tokens_s=CALM_S))
    events = Patient(Started(input_tokens=1), telling(0, 0), watch, lambda error: None)
    for _ in range(3):
        await anext(events)
        await anyio.sleep(CALM_S * 1.2)
    watch.close()


async def test_somebody_elses_cancellation_wins_in_the_same_moment():
    watch = watching(Patience(first_token_s=SHORT_S))

    async def stubborn() -> None:
        try:
            await anyio.sleep_forever()
        except asyncio.CancelledError:
            task.cancel()  # the client hangs up while the time-out is on its way
            raise

    task = asyncio.ensure_future(watch.hold(stubborn))
    with pytest.raises(asyncio.CancelledError):
        await task
    watch.close()


async def test_a_task_that_ran_out_of_time_is_not_left_cancelled():
    await heard(watching(Patience(first_token_s=SHORT_S)))
    task = asyncio.current_task()
    assert task is not None
    assert 0 == task.cancelling()
    await anyio.lowlevel.checkpoint()


async def test_connect_is_final_when_the_caller_set_it():
    late = ApiError(ErrorKind.TIMEOUT, param="connect_s")
    assert not watching(model=Patience(connect_s=1)).judged(late).is_final
    assert watching(own=Patience(connect_s=1)).judged(late).is_final
