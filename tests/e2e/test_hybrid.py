"""The service first and this machine when it is gone: real weights answer, and the service is used again by itself."""

import time

import pytest

import boxes
from boxes import Box
from sdk import forms
from support.ports import free_port

pytestmark = pytest.mark.e2e

# The profile's own deployments, the other way round, at a service that is not there yet; one engine, so that one model is loaded.
TOML = """
[engine.cloud]
address = "http://127.0.0.1:{port}"
[[model]]
name = "qwen-turbo"
deployments = ["cloud", "small"]
[retries]
attempts = 2
base_s = 0.01
[breaker]
least_attempts = 4
open_s = 0.5
"""
ASKED = [{"role": "user", "content": "What is the capital of France? One word."}]
# Only echo says the question.
ECHOED = "capital of France"


def asked(box: Box) -> tuple[str, str]:
    """Who answered, and the text."""
    with forms.openai_client(box) as client:
        raw = client.chat.completions.with_raw_response.create(
            model="qwen-turbo",
            messages=ASKED,  # type: ignore[arg-type]
            max_tokens=8,
            temperature=0.0,
            extra_headers={"X-Qwenbox-Show": "deployment"},
        )
    return raw.headers["x-qwenbox-deployment"], raw.parse().choices[0].message.content or ""


def test_real_weights_answer_while_the_service_is_gone_and_it_is_used_again_when_it_is_back(serve, weights_box: Box) -> None:
    port, home = free_port(), serve.next_home()
    home.mkdir()
    (home / "weights").symlink_to((weights_box.home / "weights").resolve())
    toml = TOML.format(port=port) + boxes.NO_CACHE
    box = serve(home, profile="hybrid", toml=toml, environment={"DASHSCOPE_API_KEY": boxes.KEY})

    for _ in range(3):
        who, text = asked(box)
        assert ("small", True) == (who, "Paris" in text), text
    # Streamed and native calls as well.
    for name in ("Generation", "Generation stream", "OpenAI stream"):
        assert "Paris" in forms.EVERY[name](box, ASKED, max_tokens=8, temperature=0.0).first.text

    for _ in range(2):
        with boxes.serve(serve.next_home(), port=port) as service:
            deadline = time.monotonic() + 60
            while asked(box)[0] != "cloud":
                assert time.monotonic() < deadline, box.log[-2000:]
            for _ in range(5):
                who, text = asked(box)
                assert ("cloud", True) == (who, ECHOED in text), text
            service.process.kill()
            service.process.wait()
            who, text = asked(box)
            assert ("small", True) == (who, "Paris" in text), text
