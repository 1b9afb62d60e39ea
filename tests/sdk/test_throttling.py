"""Our 429s, as the SDKs' own retries meet them: nobody fails who waits as long as he is told."""

import itertools
import threading
import time
from collections.abc import Callable
from typing import Any

import dashscope
import openai
import pytest

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


@pytest.mark.parametrize("sdk", [openai_client, v2_client])
def test_sdks_own_retries_recover_from_throttling(sdk: Callable[[Box], Any], serve, is_full: bool) -> None:
    box = serve(toml=TOML)
    windows = 6 if is_full else 3
    failures: list[str] = []
    # As people's: no two alike.
    questions = (f"question {number}" for number in itertools.count())
    done: list[float] = []
    end_s = time.monotonic() + windows * WINDOW_S

    def client() -> None:
        with sdk(box) as asking:
            while time.monotonic() < end_s:
                begun_s = time.monotonic()
                try:
                    asking.chat.completions.create(model="qwen-plus", messages=[{"role": "user", "content": next(questions)}])
                    done.append(time.monotonic() - begun_s)
                except Exception as error:
                    failures.append(repr(error))
                # Twice the limit, were nobody refused.
                time.sleep(max(0.0, begun_s + CLIENTS * WINDOW_S / (2 * LIMIT) - time.monotonic()))

    threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = Books(box).rows()
    inside = busiest([(row["admitted_at"], 1) for row in rows], WINDOW_S - 1e-5)
    print(f"\n{sdk.__name__}: {len(done)} calls, longest {max(done):.1f} s, {len(failures)} failed; busiest window {inside} of {LIMIT}")
    assert [] == failures
    assert inside <= LIMIT
    assert len(rows) >= 0.9 * LIMIT * windows
