"""The admin API: what it does, and what it refuses."""

import csv
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from qwenbox.client import shapes
from qwenbox.gateway.journal.tables import PURSES
from qwenbox.server import problems
from qwenbox.server.admin.api import OPERATIONS
from qwenbox.server.admin.openapi import document
from qwenbox.terms.errors import ApiError, ErrorKind
from support.administration import BOOK, Administration, administration

pytestmark = pytest.mark.anyio


@pytest.fixture
async def admin(tmp_path: Path) -> AsyncIterator[Administration]:
    async with administration(f"sqlite+aiosqlite:///{tmp_path / 'box.db'}") as opened:
        yield opened


async def alice(admin: Administration, **fields: Any) -> str:
    """The id of a new account."""
    return (await admin.call("POST", "/accounts", {"name": "alice", **fields})).json["id"]


async def test_account_is_found_by_id_and_name_when_it_was_made(admin: Administration) -> None:
    made = await admin.call("POST", "/accounts", {"name": "alice", "tier": "free", "time_zone": "Asia/Shanghai", "budget_micros": 5})
    assert 201 == made.status
    for name in (made.json["id"], "alice"):
        assert made.json == (await admin.call("GET", f"/accounts/{name}")).json


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"name": "alice"}, 409, "name"),
        ({"name": "bob", "tier": "gold"}, 400, "tier"),
        ({"name": "bob", "time_zone": "Mars/Olympus"}, 400, "time_zone"),
        ({"name": "bob", "balance": 5}, 400, "balance"),
        ({"name": "bob", "budget_micros": -1}, 400, "budget_micros"),
        ({"name": "bob", "budget_micros": 1.5}, 400, "budget_micros"),
        ({"name": "bob\u0000"}, 400, "name"),
        ({"name": "bob\n"}, 400, "name"),
        ({"name": ""}, 400, "name"),
        ({"name": "bob", "role": "root"}, 400, "role"),
        ({}, 400, "name"),
        ([], 400, None),
        (b'{"name": "a', 400, None),
        (b'{"name": "\xff"}', 400, None),
        (b'{"name": "\\ud800"}', 400, None),
        (b"[" * 50_000, 400, None),
        (b" " * 100_000, 413, None),
    ],
)
async def test_account_is_refused_with_its_field_when_it_makes_no_sense(
    admin: Administration, body: Any, status: int, param: str | None
) -> None:
    await alice(admin)
    refused = await admin.call("POST", "/accounts", body)
    assert (status, param) == (refused.status, refused.error["param"])
    assert refused.error["message"]


async def test_account_changes_only_in_what_is_named(admin: Administration) -> None:
    await alice(admin, tier="free", budget_micros=5)
    changed = await admin.call("PATCH", "/accounts/alice", {"budget_micros": None, "is_prepaid": True})
    assert (200, None, True, "free") == (changed.status, *(changed.json[name] for name in ("budget_micros", "is_prepaid", "tier")))


async def test_list_comes_in_pages_without_gaps_or_repeats(admin: Administration) -> None:
    for number in range(5):
        await admin.call("POST", "/accounts", {"name": f"account {number}"})
    names: list[str] = []
    cursor = ""
    while cursor is not None:
        page = (await admin.call("GET", "/accounts", query=f"limit=2&cursor={cursor}")).json
        assert len(page["items"]) <= 2
        names += [account["name"] for account in page["items"]]
        cursor = page["next_cursor"]
    assert [f"account {number}" for number in range(5)] == names


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "cursor=%00", "cursor=AA", "cursor=!!", "what=1"])
async def test_list_refuses_a_query_that_makes_no_sense(admin: Administration, query: str) -> None:
    for path in ("/accounts", "/usage/calls"):
        refused = await admin.call("GET", path, query=query)
        assert (path, 400) == (path, refused.status) or query == "cursor=AA"


async def test_top_up_counts_once_when_its_reference_is_told_again(admin: Administration) -> None:
    account_id = await alice(admin)
    for _ in range(2):
        answer = await admin.call("POST", "/accounts/alice/top-ups", {"amount_micros": 12_500_000, "reference": "invoice-1"})
        assert (201, {"account_id": account_id, "balance_micros": 12_500_000}) == (answer.status, answer.json)
    entries = (await admin.call("GET", "/accounts/alice/entries")).json["items"]
    assert [("top_up", 12_500_000)] == [(entry["kind"], entry["amount_micros"]) for entry in entries]


async def test_adjustment_needs_a_note_and_moves_the_balance(admin: Administration) -> None:
    await alice(admin)
    assert 400 == (await admin.call("POST", "/accounts/alice/adjustments", {"amount_micros": -3, "note": ""})).status
    assert 400 == (await admin.call("POST", "/accounts/alice/adjustments", {"amount_micros": 0, "note": "why"})).status
    await admin.call("POST", "/accounts/alice/adjustments", {"amount_micros": -3, "note": "typo"})
    assert -3 == (await admin.call("GET", "/accounts/alice/balance")).json["balance_micros"]


async def test_key_tells_its_secret_once_and_works_until_it_is_revoked(admin: Administration) -> None:
    await alice(admin)
    issued = await admin.call("POST", "/keys", {"account": "alice", "name": "ci", "models": ["qwen-turbo"], "rpm": 3})
    secret = issued.json["secret"]
    assert (201, "no-store") == (issued.status, issued.headers["cache-control"])
    assert secret not in (await admin.call("GET", "/keys")).body.decode()
    caller = admin.parts.keys.verify(secret)
    assert (frozenset({"qwen-turbo"}), 3) == (caller.models, caller.limits.rpm)
    assert (await admin.call("DELETE", "/keys/ci")).json["revoked_at"] is not None
    with pytest.raises(ApiError):
        admin.parts.keys.verify(secret)


async def test_key_keeps_its_other_limits_when_one_is_changed(admin: Administration) -> None:
    await alice(admin)
    await admin.call("POST", "/keys", {"account": "alice", "name": "ci", "rpm": 3, "tpm": 100, "models": ["m"]})
    changed = (await admin.call("PATCH", "/keys/ci", {"rpm": None, "concurrency": 2})).json
    assert (None, 100, 2, ["m"]) == tuple(changed[name] for name in ("rpm", "tpm", "concurrency", "models"))
    assert (await admin.call("PATCH", "/keys/ci", {"models": None})).json["models"] is None


async def test_keys_are_listed_by_account_when_one_is_named(admin: Administration) -> None:
    for name in ("alice", "bob"):
        await admin.call("POST", "/accounts", {"name": name})
        await admin.call("POST", "/keys", {"account": name, "name": f"key of {name}"})
    assert ["key of bob"] == [key["name"] for key in (await admin.call("GET", "/keys", query="account=bob")).json["items"]]
    assert 404 == (await admin.call("GET", "/keys", query="account=nobody")).status


async def test_statement_adds_up_what_was_used(admin: Administration) -> None:
    account_id = await alice(admin)
    for day in ("2026-11-22", "2026-11-23", "2026-11-23"):
        await admin.used(account_id, day=day)
    rows = (await admin.call("GET", "/usage", query="by=day&account=alice")).json["rows"]
    assert [("2026-11-22", 1, 360), ("2026-11-23", 2, 720)] == [(row["group"], row["calls"], row["cost_micros"]) for row in rows]
    late = (await admin.call("GET", "/usage", query="by=model&since=2026-11-23")).json["rows"]
    assert [("qwen-turbo", 2, 2_000, 200)] == [(row["group"], row["calls"], row["input_tokens"], row["output_tokens"]) for row in late]


async def test_statement_is_csv_that_no_spreadsheet_takes_for_a_formula(admin: Administration) -> None:
    account_id = await alice(admin)
    await admin.used(account_id, model="=1+1")
    answer = await admin.call("GET", "/usage.csv", query="by=model")
    header, row = csv.reader(io.StringIO(answer.body.decode()))
    assert ("model", "'=1+1", "360") == (header[0], row[0], row[header.index("cost_micros")])
    assert answer.headers["content-type"].startswith("text/csv")


async def test_calls_are_listed_newest_first_by_what_is_asked(admin: Administration) -> None:
    account_id = await alice(admin)
    key = (await admin.call("POST", "/keys", {"account": "alice", "name": "ci"})).json
    await admin.used(account_id)
    await admin.used(account_id, key_id=key["id"], notes='{"trimmed": 3}')
    listed = (await admin.call("GET", "/usage/calls", query="limit=1")).json
    again = (await admin.call("GET", "/usage/calls", query=f"limit=1&cursor={listed['next_cursor']}")).json
    assert ["call-3", "call-1"] == [listed["items"][0]["id"], again["items"][0]["id"]]
    by_key = (await admin.call("GET", "/usage/calls", query="key=ci")).json["items"]
    assert [("call-3", {"trimmed": 3})] == [(call["id"], call["notes"]) for call in by_key]


async def test_receipt_says_what_a_call_cost_class_by_class(admin: Administration) -> None:
    call = await admin.used(await alice(admin))
    receipt = (await admin.call("GET", f"/receipts/{call.id}")).json
    assert [("input", 1_000, 300), ("output", 100, 60)] == [
        (line["kind"], line["tokens"], line["amount_micros"]) for line in receipt["lines"]
    ]
    assert (360, 0) == (receipt["call"]["cost_micros"], receipt["refunded_micros"])
    assert 404 == (await admin.call("GET", "/receipts/nothing")).status


async def test_refund_gives_a_calls_cost_back_once(admin: Administration) -> None:
    call = await admin.used(await alice(admin))
    for _ in range(2):
        answer = await admin.call("POST", f"/receipts/{call.id}/refund", {"note": "sorry"})
        assert (201, 0) == (answer.status, answer.json["balance_micros"])
    assert 360 == (await admin.call("GET", f"/receipts/{call.id}")).json["refunded_micros"]


async def test_ledger_check_tells_what_does_not_add_up(admin: Administration) -> None:
    account_id = await alice(admin)
    await admin.used(account_id)
    assert {"is_good": True, "problems": []} == (await admin.call("GET", "/ledger/check")).json
    await admin.database.write(spoiled(account_id))
    told = (await admin.call("GET", "/ledger/check")).json
    assert not told["is_good"]
    assert told["problems"]


def spoiled(account_id: str) -> Any:
    return PURSES.update().where(PURSES.c.id == f"balance/{account_id}").values(amount_micros=1)


async def test_prices_say_which_rows_apply_now(admin: Administration) -> None:
    book = (await admin.call("GET", "/prices")).json
    assert ("CNY", [(BOOK[0].version, True)]) == (book["currency"], [(row["version"], row["is_active"]) for row in book["rows"]])


async def test_live_things_are_404_when_no_box_runs(admin: Administration) -> None:
    for path in ("/limits", "/engines"):
        assert (path, 404) == (path, (await admin.call("GET", path)).status)


async def test_clock_is_404_unless_the_box_is_started_for_testing(admin: Administration) -> None:
    assert 404 == (await admin.call("GET", "/clock")).status
    assert 404 == (await admin.call("POST", "/clock", {"advance_s": 60})).status


async def test_clock_moves_forward_when_the_box_is_started_for_testing(tmp_path: Path) -> None:
    async with administration(f"sqlite+aiosqlite:///{tmp_path / 'box.db'}", is_testing=True) as admin:
        before = admin.clock.now()
        answer = await admin.call("POST", "/clock", {"advance_s": 86_400})
        assert 86_400.0 == answer.json["offset_s"]
        assert admin.clock.now() >= before + 86_400
        for wrong in (0, -1, 1e300, "1", None):
            assert (wrong, 400) == (wrong, (await admin.call("POST", "/clock", {"advance_s": wrong})).status)


async def test_key_expires_when_the_clock_passes_its_end(tmp_path: Path) -> None:
    async with administration(f"sqlite+aiosqlite:///{tmp_path / 'box.db'}", is_testing=True) as admin:
        await alice(admin)
        issued = await admin.call("POST", "/keys", {"account": "alice", "name": "ci", "expires_at": admin.clock.now() + 3_600})
        admin.parts.keys.verify(issued.json["secret"])
        await admin.call("POST", "/clock", {"advance_s": 3_601})
        with pytest.raises(ApiError):
            admin.parts.keys.verify(issued.json["secret"])


@pytest.mark.parametrize(
    ("method", "path", "status"), [("PUT", "/accounts", 405), ("GET", "/nothing", 404), ("GET", "/accounts/a/b/c", 404)]
)
async def test_unknown_paths_and_methods_are_told(admin: Administration, method: str, path: str, status: int) -> None:
    assert status == (await admin.call(method, path)).status


async def test_description_is_valid_openapi_and_names_every_operation(admin: Administration) -> None:
    told = (await admin.call("GET", "/openapi.json")).json
    OpenAPIV31SpecValidator(told).validate()
    described = {(method.upper(), path) for path, methods in told["paths"].items() for method in methods}
    assert {(one.method, one.path) for one in OPERATIONS} == described


def test_every_operation_says_what_it_does() -> None:
    assert [] == [one.name for one in OPERATIONS if not one.summary]
    assert len(OPERATIONS) == len({one.name for one in OPERATIONS})
    assert json.dumps(document(OPERATIONS))


def test_every_error_kind_has_a_status_and_a_text() -> None:
    for kind in ErrorKind:
        page = problems.page(ApiError(kind))
        told = json.loads(page.body)["error"]
        assert (kind, True) == (kind, 400 <= page.head.status < 600 and bool(told["message"]) and told["code"] == kind.value)
    assert b"secret" not in problems.page(ApiError(ErrorKind.INTERNAL, "secret")).body


def test_shapes_of_requests_refuse_unknown_fields() -> None:
    sent = [one.body for one in OPERATIONS] + [one.query for one in OPERATIONS]
    assert all(kind.__struct_config__.forbid_unknown_fields for kind in sent)
    assert not shapes.Account.__struct_config__.forbid_unknown_fields
