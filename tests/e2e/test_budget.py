"""Money is exact: a balance serves as many calls as it is worth, no more and no fewer, however many ask at once."""

import asyncio
import time
from collections import Counter

import pytest

from boxes import KEY, Box
from qwenbox.gateway.accounts import AccountChange
from support.books import Books
from support.load import Connection, Sample

TEXT = "one two three"
MODEL = "qwen-max"

PLACES = ["SQLite", "PostgreSQL", "2 workers, PostgreSQL and Valkey"]


def box_at(place: str, serve, stores, toml: str = "") -> tuple[Box, Books]:
    if place == "SQLite":
        box = serve(toml=toml)
        return box, Books(box)
    url = stores.postgres()
    environment = {"QWENBOX_DATABASE_URL": url}
    if "workers" in place:
        environment |= {"QWENBOX_VALKEY_URL": stores.valkey().url, "QWENBOX_WORKERS": "2"}
    box = serve(toml=toml, environment=environment, start_s=120)
    return box, Books(box, url)


def cost_of_one(box: Box, books: Books) -> tuple[int, int]:
    """Micro-units and output tokens of one call."""
    (sample,) = asyncio.run(ask(box, 1, max_tokens=1_000))
    (row,) = [row for row in books.rows() if row["id"] == sample.id]
    return row["cost_micros"], row["output_tokens"]


async def ask(box: Box, calls: int, max_tokens: int) -> list[Sample]:
    async def one() -> Sample:
        async with Connection(box.port, KEY) as connection:
            return await connection.chat(TEXT, model=MODEL, max_tokens=max_tokens)

    return await asyncio.gather(*(one() for _ in range(calls)))


def pay_in(books: Books, micros: int) -> str:
    """The default account becomes a prepaid one that has `micros`; returns its id."""

    async def work(office) -> str:
        account = await office.accounts.named("default")
        balance = await office.ledger.balance(account.id)
        await office.ledger.top_up(account.id, micros - balance, "test", f"test-{micros}-{balance}")
        await office.accounts.update(account.id, AccountChange(is_prepaid=True))
        return account.id

    return books.office(work)


@pytest.mark.parametrize("reserved", [1, 10], ids=["exact worst case", "worst case ten times the cost"])
@pytest.mark.parametrize("place", PLACES)
def test_balance_worth_317_calls_serves_317_of_1000(place: str, reserved: int, serve, stores) -> None:
    box, books = box_at(place, serve, stores)
    cost, output_tokens = cost_of_one(box, books)
    account = pay_in(books, 317 * cost)
    wait_known()
    samples = asyncio.run(ask(box, 1_000, max_tokens=output_tokens * reserved))
    counts = Counter(sample.status if sample.status == 200 else sample.code for sample in samples)
    print(f"\n{place}; reserved {reserved}x: {dict(counts)}, balance {books.balance(account)}")
    assert {200: 317, "Arrearage": 683} == counts
    assert 0 == books.balance(account)
    assert [] == books.faults()
    assert {"stop"} == {sample.json["choices"][0]["finish_reason"] for sample in samples if sample.status == 200}


@pytest.mark.parametrize("place", PLACES)
def test_no_call_is_refused_well_under_the_budget(place: str, serve, stores) -> None:
    box, books = box_at(place, serve, stores)
    cost, output_tokens = cost_of_one(box, books)
    pay_in(books, 400 * cost)
    wait_known()
    samples = asyncio.run(ask(box, 200, max_tokens=output_tokens * 10))
    assert {200} == {sample.status for sample in samples}
    assert [] == books.faults()


def wait_known() -> None:
    """Until every process of the box has read that the account is prepaid: two of its looks, a second each."""
    time.sleep(2.2)
