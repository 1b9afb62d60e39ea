"""`qwenbox batch run` against a real box: every form of input, order, failures, and what is refused before anything is sent."""

import csv
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from typer.testing import CliRunner, Result

from boxes import Box
from qwenbox.cli.main import app
from sdk import forms
from support.bare_service import BareService
from support.books import Books
from support.doorway import Doorway

Run = Callable[..., Result]


@pytest.fixture
def run(box: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`qwenbox batch …` in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def invoke(*words: str, sent: str | bytes | None = None, address: str = box.compatible, key: str = box.key) -> Result:
        environment = {"OPENAI_BASE_URL": address, "OPENAI_API_KEY": key, "QWENBOX_HOME": str(tmp_path / "home")}
        return CliRunner().invoke(app, ["batch", *words], input=sent, env=environment)

    return invoke


@pytest.fixture
def client(box: Box):
    with forms.openai_client(box) as opened:
        yield opened


def rows(name: str = "out.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(name).read_text("utf-8").splitlines()]


def put(name: str, *lines: object) -> str:
    Path(name).write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines), "utf-8")
    return name


def test_plain_prompts_are_answered_in_order_with_usage_and_cost(run: Run, box: Box) -> None:
    done = run("run", put("in.txt", *(f"number {number}" for number in range(30))), "-o", "out.jsonl", "-m", "qwen-plus")

    assert (0, "") == (done.exit_code, done.stdout), done.stderr
    found = rows()
    assert [(number + 1, str(number + 1)) for number in range(30)] == [(row["line"], row["custom_id"]) for row in found]
    assert all(row["answer"].endswith(f": number {number}") for number, row in enumerate(found))
    assert {("stop", None)} == {(row["finish_reason"], row["error"]) for row in found}
    billed = {row["id"]: row["cost_micros"] for row in Books(box).rows()}
    assert [billed[row["request_id"]] for row in found] == [row["cost_micros"] for row in found]
    spent = (sum(row["usage"][name] for row in found) for name in ("prompt_tokens", "completion_tokens"))
    assert " · {:,} tokens in, {:,} out · cost ".format(*spent) in done.stderr


def test_a_table_becomes_a_table_with_answers(run: Run) -> None:
    Path("in.csv").write_bytes('name,text\r\n甲,"a\nb, ""c"""\r\n\r\n乙,d\r\n'.encode("gb18030"))
    done = run("run", "in.csv", "-o", "out.csv", "-m", "qwen-plus", "--encoding", "gb18030", "--prompt", "{name}: {text}")

    assert 0 == done.exit_code, done.stderr
    with Path("out.csv").open(encoding="utf-8", newline="") as handle:
        header, *found = list(csv.reader(handle))
    assert ["name", "text", "answer", "finish_reason", "input_tokens", "output_tokens", "cost", "error"] == header
    assert [["甲", 'a\nb, "c"'], ["乙", "d"]] == [row[:2] for row in found]
    assert ['甲: a\nb, "c"', "乙: d"] == [row[2].partition(": ")[2] for row in found]
    assert all(0 < float(row[6]) < 1 and row[7] == "" for row in found)


def test_full_requests_bodies_and_prompts_mix_and_models_get_batches_of_their_own(run: Run, client: openai.OpenAI) -> None:
    body = {"model": "qwen-max", "messages": [{"role": "user", "content": "full"}]}
    full = {"custom_id": "mine", "method": "POST", "url": "/v1/chat/completions", "body": body}
    completion = {"custom_id": "raw", "method": "POST", "url": "/v1/completions", "body": {"model": "qwen-max", "prompt": "p"}}
    lines = (full, "", {"messages": body["messages"], "n": 2}, {"custom_id": "c", "prompt": "three"}, completion)
    done = run("run", put("in.jsonl", *lines), "-o", "out.jsonl", "-m", "qwen-plus", "--temperature", "0")

    assert 0 == done.exit_code, done.stderr
    found = rows()
    assert [(1, "mine"), (3, "3"), (4, "c"), (5, "raw")] == [(row["line"], row["custom_id"]) for row in found]
    assert ["full", "full", "three", "p"] == [row["answer"].rpartition(": ")[2] for row in found]
    assert 2 == len(found[1]["answers"])
    run_id = json.loads(Path("out.jsonl.state").read_text())["run_id"]
    listed = client.batches.list(extra_query={"ds_name": f"qwenbox-{run_id}-"})
    expected = [("qwen-max", "/v1/chat/completions"), ("qwen-max", "/v1/completions"), ("qwen-plus", "/v1/chat/completions")]
    assert expected == sorted((batch.to_dict()["model"], batch.endpoint) for batch in listed)


def test_lines_that_fail_are_reported_and_only_they_are_asked_again(run: Run, box: Box) -> None:
    lines = ({"prompt": "good"}, {"messages": []}, {"prompt": "fine"})
    asked = ("run", put("in.jsonl", *lines), "-o", "out.jsonl", "-m", "qwen-plus", "--errors", "bad.jsonl", "--lines-per-batch", "2")
    done = run(*asked)

    assert 1 == done.exit_code
    assert "1 failed" in done.stderr and "line 2 (2): invalid_parameter_error" in done.stderr
    assert [None, "invalid_parameter_error", None] == [row["error"] and row["error"]["code"] for row in rows()]
    assert [rows()[1]] == rows("bad.jsonl")
    before = {row["request_id"] for row in rows()}
    assert "Nothing was sent" in run(*asked).stderr
    assert 1 == run(*asked, "--retry-failed").exit_code
    assert [True, False, True] == [row["request_id"] in before for row in rows()]
    sizes = [sum(count for _, count in part["spans"]) for part in json.loads(Path("out.jsonl.state").read_text())["parts"]]
    assert [2, 1, 1] == sizes


def test_raw_results_are_the_services_own_lines(run: Run) -> None:
    done = run("run", "-", "-o", "out.jsonl", "-m", "qwen-plus", "--raw", "-q", sent='{"prompt": "a"}\n{"messages": []}\n')

    assert 1 == done.exit_code
    assert [{"id", "custom_id", "response", "error"}] * 2 == [set(row) for row in rows()]
    assert [200, 400] == [row["response"]["status_code"] for row in rows()]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("none.txt", "-o", "o"), "none.txt cannot be read"),
        (("in.txt", "-o", "nowhere/o"), "there is no folder nowhere"),
        (("bad.jsonl", "-o", "o"), "line 1: this is no JSON"),
        (("in.txt", "-o", "o", "--param", "x"), "is not NAME=JSON"),
        (("in.txt", "-o", "o", "--retry-failed"), "There is nothing to try again"),
        (("in.txt", "-o", "in.txt"), "in.txt exists already"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_is_sent(run: Run, words: tuple[str, ...], said: str) -> None:
    put("in.txt", "hello")
    put("bad.jsonl", "{")
    with Doorway() as door:
        refused = run("run", *words, "-m", "qwen-plus", address=f"{door.address}/compatible-mode/v1")
    assert 2 == refused.exit_code
    assert said in " ".join(refused.stderr.replace("│", " ").split())
    assert [] == door.seen
    assert {"in.txt", "bad.jsonl", "home"} >= {path.name for path in Path().iterdir()}


def test_another_input_or_other_options_are_no_part_of_a_run(run: Run) -> None:
    words = ("run", put("in.txt", "one"), "-o", "out.jsonl", "-m", "qwen-plus")
    assert 0 == run(*words).exit_code
    changed = run(*words, "--temperature", "0")
    assert (2, True) == (changed.exit_code, "--temperature was null" in changed.stderr)
    put("in.txt", "two")
    changed = run(*words)
    assert (2, True) == (changed.exit_code, "The input has changed" in changed.stderr)
    assert 0 == run(*words, "--restart").exit_code
    assert ["two"] == [row["answer"].rpartition(": ")[2] for row in rows()]


def test_a_wrong_key_or_address_is_told_at_once(run: Run, box: Box) -> None:
    put("in.txt", "one")
    wrong = run("run", "in.txt", "-o", "out.jsonl", "-m", "qwen-plus", key="sk-wrong")
    assert (1, True) == (wrong.exit_code, "API key" in wrong.stderr), wrong.stderr
    wrong = run("run", "in.txt", "-o", "out.jsonl", "-m", "qwen-plus", "--restart", address=f"{box.base_url}/nowhere")
    assert 1 == wrong.exit_code and wrong.stderr
    assert "sk-wrong" not in wrong.stderr


def test_a_batch_that_cannot_be_run_fails_all_its_lines(catalog_box: Box, run: Run) -> None:
    failed = run("run", put("in.txt", "a", "b"), "-o", "out.jsonl", "-m", "none-such", address=catalog_box.compatible)
    assert (1, 2) == (failed.exit_code, len(rows()))
    assert "The provided model none-such is not supported by the Batch API." in failed.stderr
    shown = run("show", json.loads(Path("out.jsonl.state").read_text())["parts"][0]["batch_id"], address=catalog_box.compatible)
    assert "model_not_found" in shown.stdout and "failed" in shown.stdout


def test_batches_are_listed_shown_and_cancelled(run: Run, client: openai.OpenAI) -> None:
    run("run", put("in.jsonl", {"prompt": "a"}, {"messages": []}), "-o", "listed.jsonl", "-m", "qwen-plus")
    listed = json.loads(run("list", "--json", "--limit", "1").stdout)
    assert [("completed", {"total": 2, "completed": 1, "failed": 1})] == [(batch["status"], batch["request_counts"]) for batch in listed]
    assert "listed.jsonl" in run("list", "--status", "completed").stdout
    assert "No batches." in run("list", "--name", "nobody").stdout
    shown = run("show", listed[0]["id"]).stdout
    assert "1 done, 1 failed, 2 in all" in shown and "1 × invalid_parameter_error (2): " in shown
    over = run("cancel", listed[0]["id"])
    assert (1, "Cannot cancel a batch with status 'completed'.") == (over.exit_code, over.stderr.strip())


def test_troubles_on_the_way_are_waited_out_and_a_lost_answer_makes_no_second_batch(run: Run, box: Box, client: openai.OpenAI) -> None:
    busy = b"HTTP/1.1 %s\r\nretry-after: 0\r\ncontent-length: 2\r\n\r\n{}"
    troubles = [
        ("GET /compatible-mode/v1/batches?", "asked", b""),
        ("POST /compatible-mode/v1/files", "asked", busy % b"503 X"),
        ("POST /compatible-mode/v1/files", "answered", b""),
        ("POST /compatible-mode/v1/batches", "asked", busy % b"429 X"),
        ("POST /compatible-mode/v1/batches", "asked", b""),
        ("POST /compatible-mode/v1/batches", "answered", b""),
        ("GET /compatible-mode/v1/batches?", "answered", busy % b"500 X"),
        ("GET /compatible-mode/v1/batches/", "answered", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"),
        ("GET /compatible-mode/v1/files/", "answered", busy % b"409 X"),
        ("GET /compatible-mode/v1/files/", "answered", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"),
    ]
    left = list(troubles)

    def watch(line: str, when: str) -> bytes | None:
        if left and line.startswith(left[0][0]) and when == left[0][1]:
            return left.pop(0)[2]
        return None

    with Doorway() as door:
        door.port, door.watch = box.port, watch
        words = ("run", put("in.txt", "a", "b"), "-o", "out.jsonl", "-m", "qwen-plus")
        done = run(*words, address=f"{door.address}/compatible-mode/v1")
    assert (0, []) == (done.exit_code, left), done.stderr
    assert ["a", "b"] == [row["answer"].rpartition(": ")[2] for row in rows()]
    assert "Trying again in" in done.stderr
    run_id = json.loads(Path("out.jsonl.state").read_text())["run_id"]
    assert 1 == len(list(client.batches.list(extra_query={"ds_name": f"qwenbox-{run_id}-"})))


def test_ctrl_c_cancels_the_batch_when_told_so(run: Run, box: Box, client: openai.OpenAI) -> None:
    with Doorway() as door:
        interrupted: list[str] = []

        def watch(line: str, when: str) -> bytes | None:
            if not interrupted and when == "answered" and line.startswith("GET /compatible-mode/v1/batches/"):
                interrupted.append(line)
                os.kill(os.getpid(), signal.SIGINT)
            return None

        door.port, door.watch = box.port, watch
        words = ("run", put("in.txt", *(f"number {number}" for number in range(3_000))), "-o", "out.jsonl", "-m", "qwen-plus")
        stopped = run(*words, "--cancel-on-interrupt", address=f"{door.address}/compatible-mode/v1")
    (part,) = json.loads(Path("out.jsonl.state").read_text())["parts"]
    assert (130, True) == (stopped.exit_code, f"Cancelling {part['batch_id']}." in stopped.stderr), stopped.stderr
    assert client.batches.retrieve(part["batch_id"]).status in ("cancelling", "cancelled")
    assert not Path("out.jsonl").exists()


def test_a_service_that_tells_no_costs_and_keeps_no_order_does_as_well(run: Run) -> None:
    with BareService() as service:
        words = ("run", put("in.txt", "one", "bad two", "lost three", "four"), "-o", "out.csv", "-m", "qwen-plus")
        done = run(*words, address=service.address)
        listed = run("show", "batch_0", address=service.address)

    assert 1 == done.exit_code
    with Path("out.csv").open(encoding="utf-8", newline="") as handle:
        found = list(csv.DictReader(handle))
    assert ["ONE", "", "", "FOUR"] == [row["answer"] for row in found]
    assert [True, False, False, True] == [row["error"] == "" for row in found]
    assert ["DataInspectionFailed: no", "batch_completed"] == [row["error"].partition(": The batch")[0] for row in found[1:3]]
    assert {""} == {row["cost"] for row in found}
    # 2 x (1,000 tokens at 0.4 + 500 at 1) per million: half of the shipped prices of qwen-plus.
    assert "cost not told by this service; about 0.0018 CNY by the price book here" in done.stderr
    assert 1 == len(service.batches)
    assert "2 done, 2 failed, 4 in all" in listed.stdout
