"""Administration of a running box as its owner does it: over HTTP, and with the command line beside the box or from elsewhere."""

import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

import boxes
import wire
from boxes import Box
from support.admin_calls import ADMIN_KEY, TESTING, admin


@pytest.fixture(scope="module")
def testing_box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """An echo box with a known admin key, whose clock may be moved."""
    with boxes.serve(tmp_path_factory.mktemp("testing"), environment=TESTING) as running:
        yield running


def cli(box: Box, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command line beside the box: on its data folder, in a process of its own."""
    own = {"QWENBOX_HOME": str(box.home), "QWENBOX_PROFILE": box.profile, "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-m", "qwenbox", *arguments],
        env={**boxes.clean_environment(), **own, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def told(answer: subprocess.CompletedProcess[str]) -> object:
    assert 0 == answer.returncode, answer.stderr
    return json.loads(answer.stdout)


def test_keys_of_one_api_are_401_at_the_other(testing_box: Box):
    assert 401 == admin(testing_box, "GET", "/accounts", key=testing_box.key).status
    assert 401 == wire.post(testing_box, wire.NATIVE_CHAT, wire.native(), key=ADMIN_KEY).status
    assert 401 == admin(testing_box, "GET", "/accounts", key=None).status
    assert 200 == admin(testing_box, "GET", "/accounts").status


def test_key_made_at_the_command_line_works_and_is_billed(testing_box: Box):
    cli(testing_box, "accounts", "create", "alice", "--time-zone", "Asia/Shanghai")
    key = told(cli(testing_box, "keys", "create", "laptop", "--account", "alice", "--models", "qwen-turbo", "--json"))
    # Another process made it: the box hears of it within a second, which is what a client's own retry covers.
    answer = _until_known(testing_box, key["secret"])

    receipt = told(cli(testing_box, "usage", "receipt", answer.json["request_id"], "--json"))
    mine = wire.call(testing_box, "GET", f"/qwenbox/v1/receipts/{answer.json['request_id']}", key=key["secret"])
    others = wire.call(testing_box, "GET", f"/qwenbox/v1/receipts/{answer.json['request_id']}")

    assert key["id"] == receipt["call"]["key_id"]
    assert receipt == mine.json
    assert 404 == others.status
    assert receipt["call"]["cost_micros"] == sum(line["amount_micros"] for line in receipt["lines"])
    sums = told(cli(testing_box, "usage", "--by", "key", "--account", "alice", "--json"))
    assert [(key["id"], receipt["call"]["cost_micros"])] == [(row["group"], row["cost_micros"]) for row in sums["rows"]]
    assert "laptop" in cli(testing_box, "usage", "--by", "key").stdout
    assert "█" in cli(testing_box, "usage", "--plot").stdout
    assert answer.json["request_id"] in cli(testing_box, "usage", "calls", "--account", "alice").stdout
    assert 0 == cli(testing_box, "usage", "check").returncode


def test_command_line_says_the_same_by_http(testing_box: Box):
    remote = {"QWENBOX_ADMIN_URL": testing_box.base_url, "QWENBOX_ADMIN_KEY": ADMIN_KEY}

    here = told(cli(testing_box, "accounts", "list", "--json"))
    there = told(cli(testing_box, "accounts", "list", "--json", **remote))
    refused = cli(testing_box, "accounts", "list", QWENBOX_ADMIN_URL=testing_box.base_url, QWENBOX_ADMIN_KEY="wrong")

    assert here == there
    assert 1 == refused.returncode
    assert "admin key" in refused.stderr


def test_top_up_at_the_command_line_reaches_the_running_box(testing_box: Box):
    cli(testing_box, "accounts", "create", "paying", "--prepaid")
    balance = told(cli(testing_box, "accounts", "topup", "paying", "12.50", "--reference", "i-1", "--json"))

    assert 12_500_000 == balance["balance_micros"]
    assert 12_500_000 == admin(testing_box, "GET", "/accounts/paying/balance").json["balance_micros"]
    assert "12.50" in cli(testing_box, "accounts", "show", "paying").stdout


def test_revoked_key_is_refused_by_the_running_box(testing_box: Box):
    made = admin(testing_box, "POST", "/keys", {"account": "default", "name": "short"})
    assert 200 == wire.post(testing_box, wire.NATIVE_CHAT, wire.native(), key=made.json["secret"]).status
    admin(testing_box, "DELETE", "/keys/short")
    assert 401 == wire.post(testing_box, wire.NATIVE_CHAT, wire.native(), key=made.json["secret"]).status


def test_live_windows_and_engines_are_told_by_the_running_box(testing_box: Box):
    made = admin(testing_box, "POST", "/keys", {"account": "default", "name": "counted", "rpm": 5})
    wire.post(testing_box, wire.NATIVE_CHAT, wire.native(), key=made.json["secret"])

    windows = admin(testing_box, "GET", "/limits").json["items"]
    engines = admin(testing_box, "GET", "/engines").json["items"]

    assert [(1, 0)] == [(window["requests"], window["open_calls"]) for window in windows if window["owner_id"] == made.json["id"]]
    assert {"ready"} <= {deployment["state"] for model in engines for deployment in model["deployments"]}
    assert 1 == cli(testing_box, "clock", "show").returncode


def test_clock_is_moved_by_the_command_line_when_testing(testing_box: Box):
    remote = {"QWENBOX_ADMIN_URL": testing_box.base_url, "QWENBOX_ADMIN_KEY": ADMIN_KEY}
    before = told(cli(testing_box, "clock", "show", "--json", **remote))
    after = told(cli(testing_box, "clock", "advance", "90m", "--json", **remote))

    assert 5_400 == after["offset_s"] - before["offset_s"]
    assert "TESTING" in testing_box.log


def test_box_draws_an_admin_key_for_itself_when_none_is_chosen(box: Box):
    file = box.home / "admin.key"

    assert 0o600 == stat.S_IMODE(file.stat().st_mode)
    key = file.read_text().strip()
    assert 200 == admin(box, "GET", "/accounts", key=key).status
    assert 404 == admin(box, "GET", "/clock", key=key).status
    assert key not in box.log
    # The command line finds it on this machine.
    assert 0 == cli(box, "accounts", "list", QWENBOX_ADMIN_URL=box.base_url).returncode


def test_admin_api_is_off_when_others_can_reach_the_box_and_no_key_was_chosen(serve):
    open_box = serve(environment={"QWENBOX_HOST": "0.0.0.0"})
    key = (open_box.home / "admin.key").read_text().strip()

    refused = admin(open_box, "GET", "/accounts", key=key)

    assert 403 == refused.status
    assert "QWENBOX_ADMIN_KEY" in refused.error["message"]
    assert os.access(open_box.home / "admin.key", os.R_OK)


def _until_known(box: Box, secret: str) -> wire.Heard:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        answer = wire.post(box, wire.NATIVE_CHAT, wire.native(), key=secret)
        if answer.status != 401:
            return answer
        time.sleep(0.05)
    raise AssertionError("the box never heard of the key")
