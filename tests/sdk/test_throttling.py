"""Our 429s, as the SDKs' own retries meet them: nobody fails who waits as long as he is told."""

import itertools
import threading
import time
from collections.abc import Callable
from typing import Any

import dashscope
import openai

from boxes import Box
from sdk import forms
from support.books import Books
from support.load import busiest

CLIENTS = 20
WINDOW_S = 5.0
LIMIT = 40

TOML = f'[limits]\nwindow_s = {WINDOW_S}\ndefault_tier = "test"\n[tier.test]\nrpm = {LIMIT}\n'


def openai_client(box: Box) -> openai.OpenAI:
    return openai.OpenAI(api_key=box.key, base_url=box.compatible, max_retries=5)


def v2_client(box: Box) -> dashscope.Client:
    return forms.v2_client(box, max_retries=5)


class Load:
    """20 clients that ask for twice the limit, were nobody refused; one SDK, one box, threads of its own."""

    def __init__(self, sdk: Callable[[Box], Any], box: Box, seconds: float) -> None:
        self.sdk = sdk
        self.box = box
        self.failures: list[str] = []
        self.done: list[float] = []
        self._end_s = time.monotonic() + seconds
        # As people's: no two alike.
        self._questions = (f"question {number}" for number in itertools.count())
        self._threads = [threading.Thread(target=self._client) for _ in range(CLIENTS)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def _client(self) -> None:
        with self.sdk(self.box) as asking:
            while time.monotonic() < self._end_s:
                begun_s = time.monotonic()
                try:
                    messages = [{"role": "user", "content": next(self._questions)}]
                    asking.chat.completions.create(model="qwen-plus", messages=messages)
                    self.done.append(time.monotonic() - begun_s)
                except Exception as error:
                    self.failures.append(repr(error))
                time.sleep(max(0.0, begun_s + CLIENTS * WINDOW_S / (2 * LIMIT) - time.monotonic()))


def test_sdks_own_retries_recover_from_throttling(serve, is_full: bool) -> None:
    windows = 6 if is_full else 3
    served = [(openai_client, serve(toml=TOML)), (v2_client, serve(toml=TOML))]
    loads = [Load(sdk, box, windows * WINDOW_S) for sdk, box in served]
    for load in loads:
        load.start()
    for load in loads:
        load.join()
    for load in loads:
        rows = Books(load.box).rows()
        inside = busiest([(row["admitted_at"], 1) for row in rows], WINDOW_S - 1e-5)
        told = f"{len(load.done)} calls, longest {max(load.done):.1f} s, {len(load.failures)} failed"
        print(f"\n{load.sdk.__name__}: {told}; busiest window {inside} of {LIMIT}")
        assert [] == load.failures
        assert inside <= LIMIT
        assert len(rows) >= 0.9 * LIMIT * windows
