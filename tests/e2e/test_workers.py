"""Several workers on one port, from outside: both SDKs, one queue, keys, deaths, and the start."""

import concurrent.futures
import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import openai
import pytest
from dashscope import Generation

import boxes
from boxes import KEY, Box
from e2e import children
from qwenbox.gateway.keys import NewKey
from support.books import Books

APPROXIMATE = "[limits]\napproximate = true\n"
ONE_SLOT = f"{APPROXIMATE}[engine.echo]\nslots = 1\n"
LASTING = f"{APPROXIMATE}[engine.echo]\ndelay_s = 0.1\n"
HI = [{"role": "user", "content": "hi"}]
LONG = [{"role": "user", "content": "one two three four five six seven eight nine ten " * 20}]


def crew(serve, toml: str = APPROXIMATE, **settings) -> Box:
    return serve(toml=toml, environment={"QWENBOX_WORKERS": "2"}, **settings)


def until(holds: Callable[[], bool], seconds: float = 30.0) -> float:
    """How long it took; fails after `seconds`."""
    started = time.monotonic()
    while not holds():
        assert time.monotonic() - started < seconds
        time.sleep(0.02)
    return time.monotonic() - started


def is_alive(pid: int) -> bool:
    """Not so a process that only waits to be reaped, by whoever inherits the children of a killed one."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Kept:
    """A connection that is kept, so that all its calls reach one worker; `worker` is that one's process id."""

    def __init__(self, box: Box) -> None:
        self._box = box
        self._connection = http.client.HTTPConnection("127.0.0.1", box.port, timeout=30)
        self._connection.connect()
        self.status()
        self.worker = self._find()

    def status(self, key: str = KEY, messages: object = HI) -> int:
        body = json.dumps({"model": "qwen-turbo", "messages": messages})
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        self._connection.request("POST", "/compatible-mode/v1/chat/completions", body, headers)
        answer = self._connection.getresponse()
        answer.read()
        return answer.status

    def close(self) -> None:
        self._connection.close()

    def _find(self) -> int:
        """Who holds the other end: /proc/net/tcp knows its inode, /proc/PID/fd whose that is."""
        own = self._connection.sock.getsockname()[1]
        with open("/proc/net/tcp") as table:
            rows = [line.split() for line in table][1:]
        inode = next(row[9] for row in rows if int(row[1].split(":")[1], 16) == self._box.port and int(row[2].split(":")[1], 16) == own)
        return next(pid for pid in children.workers(self._box.process.pid) if f"socket:[{inode}]" in _files(pid))


def _files(pid: int) -> set[str]:
    found = set()
    for entry in os.scandir(f"/proc/{pid}/fd"):
        try:
            found.add(os.readlink(entry.path))
        except OSError:
            continue
    return found


@contextlib.contextmanager
def one_at_each(box: Box) -> Iterator[list[Kept]]:
    """A connection to each worker."""
    found: dict[int, Kept] = {}
    opened: list[Kept] = []

    def is_complete() -> bool:
        # Connected at once, they spread; one after the other all might reach the worker that is quicker to wake.
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            for connection in pool.map(lambda _: Kept(box), range(8)):
                opened.append(connection)
                found.setdefault(connection.worker, connection)
        return len(found) == 2

    try:
        until(is_complete)
        yield list(found.values())
    finally:
        for connection in opened:
            connection.close()


def test_both_sdks_are_answered_by_every_worker(serve) -> None:
    box = crew(serve)
    with one_at_each(box) as connections:
        assert [200, 200] == [connection.status() for connection in connections]
    client = openai.OpenAI(api_key=KEY, base_url=box.compatible, max_retries=0)
    for _ in range(4):
        assert "hi" in client.chat.completions.create(model="qwen-max", messages=HI).choices[0].message.content
        native = Generation.call(model="qwen-max", messages=HI, api_key=KEY, base_address=box.native, result_format="message")
        assert "hi" in native.output.choices[0].message.content


def test_revoked_key_is_refused_by_every_worker_within_two_seconds(serve, is_full: bool) -> None:
    box = crew(serve)
    books = Books(box)
    account = books.office(lambda office: office.accounts.named("other"))
    key, secret = books.office(lambda office: office.keys.issue(NewKey(account_id=account.id, name="short")))
    with one_at_each(box) as connections:
        until(lambda: all(connection.status(secret.reveal()) == 200 for connection in connections))
        books.office(lambda office: office.keys.revoke(key.id))
        took_s = until(lambda: all(connection.status(secret.reveal()) == 401 for connection in connections))
    print(f"\nrefused by both workers {took_s:.2f} s after the revocation")
    # Workers look every second; how late they are on a busy machine is its business.
    assert took_s <= (2.0 if is_full else 10.0)


def test_others_go_on_and_another_takes_its_place_when_a_worker_is_killed(serve) -> None:
    box = crew(serve, LASTING)
    with one_at_each(box) as (doomed, spared):
        _kill_one(box, doomed, spared)


def _kill_one(box: Box, doomed: Kept, spared: Kept) -> None:
    client = openai.OpenAI(api_key=KEY, base_url=box.compatible, max_retries=0)
    begun = threading.Barrier(13)

    def stream() -> str:
        try:
            for count, _ in enumerate(client.chat.completions.create(model="qwen-turbo", messages=LONG[:1], stream=True, max_tokens=40)):
                if count == 1:
                    begun.wait(60)
        except Exception as error:
            return type(error).__name__
        return "done"

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        running = [pool.submit(stream) for _ in range(12)]
        begun.wait(60)
        os.kill(doomed.worker, signal.SIGKILL)
        until(lambda: not is_alive(doomed.worker))
        until(lambda: _is_healthy(box))
        ends = [one.result(60) for one in running]
    took_s = until(lambda: len(children.workers(box.process.pid)) == 2)
    print(f"\nends: {ends}; two workers again {took_s:.2f} s after the last end")
    assert "done" in ends
    assert 200 == spared.status()
    with one_at_each(box) as replaced:
        assert doomed.worker not in [connection.worker for connection in replaced]
        assert [200, 200] == [connection.status() for connection in replaced]


def test_turn_of_a_killed_worker_is_free_for_the_others(serve) -> None:
    box = crew(serve, f"{ONE_SLOT}first_delay_s = 3\n[scheduler]\nqueue_wait_s = 10\n")
    port, workers = box.port, children.workers(box.process.pid)

    def call() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        body = json.dumps({"model": "qwen-turbo", "messages": HI, "stream": True})
        try:
            connection.request("POST", "/v1/chat/completions", body, {"authorization": f"Bearer {KEY}"})
            connection.getresponse().read()
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()

    # The one slot is held by a call at whichever worker; were it not given back, it would be held for ever, and the next call refused.
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        held = pool.submit(call)
        time.sleep(0.5)
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        held.result(60)
    until(lambda: len(set(children.workers(box.process.pid)) - set(workers)) == 2)
    client = openai.OpenAI(api_key=KEY, base_url=box.compatible, max_retries=0)
    assert client.chat.completions.create(model="qwen-turbo", messages=HI).choices


def test_workers_end_when_their_parent_is_killed(serve) -> None:
    box = crew(serve)
    left = children.workers(box.process.pid)
    assert 2 == len(left)
    box.process.kill()
    box.process.wait()
    took_s = until(lambda: not any(is_alive(pid) for pid in left))
    print(f"\nworkers gone {took_s:.2f} s after their parent's kill -9")


def test_running_answer_ends_whole_when_the_box_is_stopped(serve) -> None:
    box = crew(serve, LASTING)
    client = openai.OpenAI(api_key=KEY, base_url=box.compatible, max_retries=0)
    reasons = []
    for count, chunk in enumerate(client.chat.completions.create(model="qwen-turbo", messages=HI, stream=True)):
        if count == 1:
            box.process.terminate()
        reasons.extend(choice.finish_reason for choice in chunk.choices if choice.finish_reason)
    assert ["stop"] == reasons
    assert 0 == box.process.wait(30)


def test_several_workers_are_refused_without_a_shared_store(serve) -> None:
    home = serve.next_home()
    home.mkdir()
    environment = {**boxes.clean_environment(), "QWENBOX_HOME": str(home), "QWENBOX_PROFILE": "echo", "QWENBOX_PORT": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "qwenbox", "serve", "--workers", "2"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert 2 == done.returncode
    assert "QWENBOX_VALKEY_URL" in done.stderr
    assert "approximate = true" in done.stderr


def test_approximate_limits_are_said_loudly_at_the_start(serve) -> None:
    assert "Limits are approximate: each of 2 workers" in crew(serve).log


def test_memory_and_start_of_two_workers_beside_one(serve) -> None:
    """Prints what a worker costs."""
    for environment in ({}, {"QWENBOX_WORKERS": "2"}):
        started = time.monotonic()
        box = serve(toml=APPROXIMATE, environment=environment)
        took_s = time.monotonic() - started
        kilobytes = {pid: _proportional_kilobytes(pid) for pid in [box.process.pid, *children.workers(box.process.pid)]}
        shares = ", ".join(f"{kilobyte / 1000:.0f} MB" for kilobyte in kilobytes.values())
        print(f"\n{environment.get('QWENBOX_WORKERS', '1')} worker(s): ready after {took_s:.2f} s (first start); memory (PSS) {shares}")
        assert len(kilobytes) == (3 if environment else 1)


def _proportional_kilobytes(pid: int) -> int:
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Pss:"))


@pytest.mark.e2e
def test_two_workers_share_one_engine_child(weights_box: Box, serve) -> None:
    home = serve.next_home()
    home.mkdir()
    (home / "weights").symlink_to((weights_box.home / "weights").resolve())
    box = crew(serve, home=home, profile="laptop")

    def ask(number: int) -> tuple[str, int]:
        with openai.OpenAI(api_key=KEY, base_url=box.compatible, max_retries=0) as client:
            answer = client.chat.completions.create(
                model="qwen-turbo",
                messages=[{"role": "user", "content": f"Say the number {number}."}],
                max_tokens=16,
                seed=7 if number > 5 else openai.omit,
            )
        return answer.choices[0].finish_reason, answer.usage.prompt_tokens

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        ends = list(pool.map(ask, range(6)))
        shared = children.of(box.process.pid)
        seeded = list(pool.map(ask, range(6, 8)))
    workers = children.workers(box.process.pid)
    both = children.of(box.process.pid)
    print(f"\n{len(workers)} workers; engine children after 6 unseeded calls: {len(shared)}, after 2 seeded: {len(both)}")
    assert {"stop", "length"} >= {reason for reason, _ in ends + seeded}
    assert 1 == len(shared)
    assert 2 == len(both)
    assert [] == [child for worker in workers for child in children.of(worker)]
    ready = json.loads(_get(box, "/ready"))
    assert "ready" in ready["models"]["qwen-turbo"]
    box.process.kill()
    box.process.wait()
    until(lambda: not any(is_alive(pid) for pid in [*workers, *both]))


def _is_healthy(box: Box) -> bool:
    """A connection that comes before the parent has seen a worker's death may still reach the dead one's socket, and be reset."""
    try:
        return b'"status":"ok"' in _get(box, "/health")
    except ConnectionError:
        return False


def _get(box: Box, path: str) -> bytes:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", box.port, timeout=10)) as connection:
        connection.request("GET", path)
        return connection.getresponse().read()
