"""The document's call_with_retry against our 429s: it waits as the document says, and then it is answered."""

import re

import pytest

from conftest import Serve
from e2e.test_documented_examples import OPENAI, RETRY, opening, run

# One call in any so many seconds; the first one below takes it.
LIMITED = '[limits]\nwindow_s = {window_s}\ndefault_tier = "test"\n[tier.test]\nrpm = 1\n'
TAKEN = "client.chat.completions.create(model='qwen-turbo', messages=[{'role': 'user', 'content': '占用'}])"
WITHOUT_ITS_OWN = "client = client.with_options(max_retries=0)"
TELLING = "answer = call_with_retry()\nprint(answer and answer.choices[0].message.content)"


def told(serve: Serve, window_s: float, *parts: str) -> list[str]:
    box = serve(toml=LIMITED.format(window_s=window_s))
    return run(box, opening(OPENAI.code), *parts, TAKEN, RETRY.code, TELLING).splitlines()


def test_retry_example_waits_two_then_four_seconds_and_is_answered(serve: Serve) -> None:
    waited, longer, answer = told(serve, 5, WITHOUT_ITS_OWN)
    assert [waited, longer] == ["达到速率限制，等待 2 秒...", "达到速率限制，等待 4 秒..."]
    assert re.fullmatch("Echo [0-9a-f]{4}: 你好", answer)


def test_retry_example_gives_up_after_the_third_when_the_limit_lasts(serve: Serve, is_full: bool) -> None:
    if not is_full:
        pytest.skip("waits 12 s; make prove")
    assert told(serve, 60, WITHOUT_ITS_OWN) == [f"达到速率限制，等待 {seconds} 秒..." for seconds in (2, 4, 6)] + ["None"]


def test_the_sdks_own_retries_leave_it_nothing_to_wait_for(serve: Serve) -> None:
    """As printed, the client has the SDK's two retries, and they heed our Retry-After."""
    (answer,) = told(serve, 1)
    assert re.fullmatch("Echo [0-9a-f]{4}: 你好", answer)
