"""What a measurement says of an engine whose speed is known, and what becomes of it."""

from pathlib import Path

import anyio
import pytest
from sqlalchemy import select

from qwenbox.clock import SystemClock
from qwenbox.engines.echo.engine import Echo, EchoConfig
from qwenbox.gateway.journal.tables import USAGE
from qwenbox.gateway.settings import Settings
from qwenbox.gateway.speed import OUTPUT_TOKENS, Speeds
from qwenbox.terms.engine import Health, HealthState
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.model import Capability, ModelCard
from support.gateways import CARD, Office, open_gateway

pytestmark = pytest.mark.anyio

FIRST_S, EACH_S = 0.05, 0.004


def speeds_of(office: Office) -> Speeds:
    gateway = office.gateway
    return Speeds(gateway.catalog, gateway.router, Settings(office.database), SystemClock())


class Idle(Echo):
    """Echo that has to be loaded: its first call takes longer."""

    def __init__(self) -> None:
        super().__init__(EchoConfig())
        self.asked: list[int | None] = []

    async def health(self) -> Health:
        return Health(state=HealthState.READY if self.asked else HealthState.IDLE)

    def chat(self, request):  # type: ignore[no-untyped-def]
        self.asked.append(request.max_output_tokens)
        return super().chat(request)


async def test_speed_is_that_of_the_engine_and_is_remembered_by_all_processes(tmp_path: Path) -> None:
    async with open_gateway(tmp_path, Echo(EchoConfig(first_delay_s=FIRST_S, delay_s=EACH_S))) as office:
        assert {} == await speeds_of(office).last()
        speed = await speeds_of(office).measure("m")
        assert {"m": speed} == await speeds_of(office).last()
        again = await speeds_of(office).measure("m")
        assert {"m": again} == await speeds_of(office).last()
        assert [] == await office.database.read(select(USAGE)), "nobody pays for it"
    assert speed.ttft_s >= FIRST_S
    assert (OUTPUT_TOKENS, "e0") == (speed.output_tokens, speed.deployment)
    assert speed.input_tokens > 300
    assert speed.prefill_tokens_s is not None
    assert speed.prefill_tokens_s == pytest.approx(speed.input_tokens / speed.ttft_s)
    assert speed.decode_tokens_s is not None
    assert 0 < speed.decode_tokens_s <= 1 / EACH_S, "an engine that rests after each token cannot be faster"


async def test_load_does_not_count_when_the_weights_were_not_loaded(tmp_path: Path) -> None:
    engine = Idle()
    async with open_gateway(tmp_path, engine) as office:
        await speeds_of(office).measure("m")
        await speeds_of(office).measure("m")
    assert [1, OUTPUT_TOKENS, OUTPUT_TOKENS] == engine.asked


async def test_second_measurement_is_refused_while_one_runs(tmp_path: Path) -> None:
    async with open_gateway(tmp_path, Echo(EchoConfig(first_delay_s=0.2))) as office, anyio.create_task_group() as tasks:
        speeds = speeds_of(office)
        tasks.start_soon(speeds.measure, "m")
        await anyio.lowlevel.checkpoint()
        with pytest.raises(ApiError) as refused:
            await speeds.measure("m")
        assert ErrorKind.CONFLICT is refused.value.kind


async def test_measurement_is_refused_of_what_is_unknown_or_does_not_write(tmp_path: Path) -> None:
    card = ModelCard(context_tokens=512, capabilities=frozenset({Capability.EMBEDDING}))
    async with open_gateway(tmp_path, Echo(EchoConfig()), card=card) as office:
        for name, kind in (("m", ErrorKind.INVALID_REQUEST), ("nothing", ErrorKind.MODEL_NOT_FOUND)):
            with pytest.raises(ApiError) as refused:
                await speeds_of(office).measure(name)
            assert kind is refused.value.kind


async def test_last_measurement_stays_when_the_next_one_fails(tmp_path: Path) -> None:
    async with open_gateway(tmp_path, Echo(EchoConfig())) as office:
        speed = await speeds_of(office).measure("m")
    async with open_gateway(tmp_path, Echo(EchoConfig(context_tokens=64)), card=CARD) as office:
        with pytest.raises(ApiError):
            await speeds_of(office).measure("m")
        assert {"m": speed} == await speeds_of(office).last()
