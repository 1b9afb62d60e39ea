"""A box whose console has something to show: accounts, keys, some hundred calls over three days, a batch at work, a queue."""

import json
import random
import sqlite3
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path

import boxes
from boxes import Box
from support.consoles import admin_key

# Slow enough that batch and queue are still there when somebody looks, and two names that differ in it.
TOML = """
[engine.small]
kind = "echo"
first_delay_s = 0.02
delay_s = 0.0005
[engine.large]
kind = "echo"
first_delay_s = 0.05
delay_s = 0.02
slots = 2
[limits]
default_tier = "team"
[tier.team]
rpm = 600
tpm = 200_000
concurrency = 20
[faults]
provoke = true
"""
# Of every fifty calls these fail, and no others: nothing that somebody tries on the box later fails by chance.
_FAULTS = {11: "timeout", 36: "data_inspection"}
_ACCOUNTS = (("research", ("notebooks", "nightly evaluation")), ("shop", ("search", "support chat")), ("Ünïcode 上海团队", ("内部助手",)))
_PROMPTS = (
    "Summarise the minutes of Tuesday's meeting in three sentences, please.",
    "Translate “Where is the station?” into Chinese.",
    "把下面的句子翻译成英文：今天天气很好，我们去公园散步吧。",
    "Write a Python function that finds the longest common prefix of a list of strings.",
    "Classify this review as good or bad: the parcel came two days late, but the shoes fit.",
)
_DAY_S = 86_400.0


class Caller:
    """Speaks to a box in plain JSON, as whoever has the key. fault: what its calls provoke."""

    def __init__(self, box: Box, key: str, fault: str | None = None) -> None:
        self._box = box
        self._key = key
        self._headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        if fault is not None:
            self._headers["x-qwenbox-provoke"] = fault

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, bytes]:
        asked = urllib.request.Request(
            f"{self._box.base_url}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers=self._headers,
        )
        try:
            with urllib.request.urlopen(asked, timeout=120) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def told(self, method: str, path: str, body: object = None):
        """The JSON of an answer that must be a good one."""
        status, answer = self.ask(method, path, body)
        assert status < 300, (status, answer)
        return json.loads(answer)

    def chat(self, model: str, text: str, **more: object) -> int:
        body = {"model": model, "messages": [{"role": "user", "content": text}], **more}
        return self.ask("POST", "/compatible-mode/v1/chat/completions", body)[0]

    def leave(self, model: str, text: str) -> None:
        """Hang up after the first bytes of a stream."""
        body = {"model": model, "messages": [{"role": "user", "content": text}], "stream": True}
        host, _, port = self._box.base_url.removeprefix("http://").partition(":")
        with closing(HTTPConnection(host, int(port), timeout=30)) as connection:
            connection.request("POST", "/compatible-mode/v1/chat/completions", json.dumps(body), self._headers)
            connection.getresponse().read(10)

    def upload(self, name: str, lines: Iterable[object]) -> str:
        """A file for a batch; its id."""
        content = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        quoted = name.replace("\\", "\\\\").replace('"', '\\"')
        parts = (
            'content-disposition: form-data; name="purpose"\r\n\r\nbatch',
            f'content-disposition: form-data; name="file"; filename="{quoted}"\r\ncontent-type: application/jsonl\r\n\r\n{content}',
        )
        body = "".join(f"--cut\r\n{part}\r\n" for part in parts) + "--cut--\r\n"
        asked = urllib.request.Request(
            f"{self._box.compatible}/files",
            data=body.encode(),
            headers={"authorization": f"Bearer {self._key}", "content-type": "multipart/form-data; boundary=cut"},
        )
        with urllib.request.urlopen(asked) as answer:
            return json.load(answer)["id"]

    def batch(self, name: str, count: int, model: str = "qwen-turbo", words: int = 40) -> str:
        """A batch of that many chats; its id."""
        lines = [
            {
                "custom_id": f"line-{number}",
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {"model": model, "messages": [{"role": "user", "content": f"{number} " + "word " * words}]},
            }
            for number in range(count)
        ]
        wanted = {
            "input_file_id": self.upload(name, lines),
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "metadata": {"ds_name": name.removesuffix(".jsonl")[:100]},
        }
        return self.told("POST", "/compatible-mode/v1/batches", wanted)["id"]


def admin(box: Box) -> Caller:
    return Caller(box, admin_key(box))


def new_key(box: Box, account: str, name: str, **more: object) -> str:
    return admin(box).told("POST", "/admin/v1/keys", {"account": account, "name": name, **more})["secret"]


def fill(box: Box, calls: int = 300, seed: int = 7) -> list[str]:
    """Accounts, keys, and calls that ended over the last three days. Returns the keys' secrets."""
    chance = random.Random(seed)
    keys: list[str] = []
    for account, names in _ACCOUNTS:
        admin(box).told("POST", "/admin/v1/accounts", {"name": account, "budget_micros": 50_000_000, "is_prepaid": account == "shop"})
        admin(box).told("POST", f"/admin/v1/accounts/{urllib.request.quote(account)}/top-ups", {"amount_micros": 25_000_000})
        keys += [new_key(box, account, name, expires_at=time.time() + 30 * _DAY_S, rpm=300) for name in names]

    def call(number: int) -> None:
        _call(Caller(box, keys[number % len(keys)], _FAULTS.get(number % 50)), random.Random(seed + number))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(call, range(calls)))
    _age(box.home, chance)
    return keys


def _call(caller: Caller, chance: random.Random) -> None:
    text = chance.choice(_PROMPTS)
    model = chance.choice(("qwen-turbo",) * 6 + ("qwen-plus", "qwen-max"))
    if chance.random() < 0.3:
        caller.chat(model, text, temperature=0, seed=7, max_tokens=64)
        return
    text = f"{text} ({chance.randrange(10**6)})"
    match chance.random():
        case share if share < 0.05:
            caller.leave("qwen-max", text)
        case share if share < 0.3:
            asked = {"model": model, "input": {"messages": [{"role": "user", "content": text}]}}
            caller.ask("POST", "/api/v1/services/aigc/text-generation/generation", asked)
        case _:
            caller.chat(model, text, stream=chance.random() < 0.6, max_tokens=chance.choice((16, 64, 512)))


def _age(home: Path, chance: random.Random) -> None:
    """Most calls move back, by up to three days, with what the ledger says of them; times of an echo become those of an engine."""
    with closing(sqlite3.connect(home / "qwenbox.db", timeout=30)) as database, database:
        for (call,) in database.execute("SELECT id FROM usage").fetchall():
            back = 0.0 if chance.random() < 0.25 else _DAY_S * 3 * chance.random() ** 2
            back += chance.random() * 3_000
            slower = 1 + 6 * chance.random() ** 2
            database.execute(
                "UPDATE usage SET arrived_at = arrived_at - ?, admitted_at = admitted_at - ?, duration_s = duration_s * ?, "
                "ttft_s = ttft_s * ? WHERE id = ?",
                (back, back, slower, slower, call),
            )
            database.execute("UPDATE usage SET day = DATE(admitted_at, 'unixepoch') WHERE id = ?", (call,))
            database.execute("UPDATE ledger_entries SET at = at - ? WHERE transaction_id = ?", (back, call))


@contextmanager
def lively(home: Path, *, calls: int = 300) -> Generator[Box]:
    """A filled box with a batch at work, one that is done, and calls that stream and wait for as long as the context lasts."""
    with boxes.serve(home, profile="laptop", toml=TOML) as box:
        keys = fill(box, calls)
        caller = Caller(box, keys[0])
        caller.batch("questions of this week.jsonl", 12)
        caller.batch("nightly evaluation.jsonl", 4_000, "qwen-plus", words=200)
        over = threading.Event()
        crowd = [threading.Thread(target=_keep_busy, args=(box, keys[number % 2], over), daemon=True) for number in range(4)]
        for one in crowd:
            one.start()
        try:
            yield box
        finally:
            over.set()
            for one in crowd:
                one.join(10)


def _keep_busy(box: Box, key: str, over: threading.Event) -> None:
    """Long answers, one after another, so that something always runs and something waits."""
    number = 0
    while not over.is_set():
        number += 1
        try:
            Caller(box, key).chat("qwen-max", f"{key[-6:]} {number} " + "and so on " * 30)
        except OSError:
            return
