"""Asks the document's question through both official SDKs: of the box that runs here already, else of one that is started for it."""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager

import dashscope
from dashscope import Generation
from openai import OpenAI

PORT = os.environ.get("QWENBOX_PORT", "8000")
BASE = f"http://127.0.0.1:{PORT}"
QWENBOX = [sys.executable, "-m", "qwenbox"]
HINT = "Unset DASHSCOPE_API_KEY if it is of another box; set QWENBOX_HOME as this one has it."
# A running box learns of a new key within 2 seconds.
LEARNS_S = 5.0
MESSAGES = [
    {"role": "system", "content": "你是一个有帮助的助手。"},
    {"role": "user", "content": "请介绍一下自然语言处理技术。"},
]


def main() -> int:
    with running_box(), own_key() as key:
        return ask(key)


def ask(key: str) -> int:
    """The exit status: 1 for a refusal, which is printed."""
    print("\n── dashscope ──")
    dashscope.base_http_api_url = f"{BASE}/api/v1"
    for chunk in Generation.call(model="qwen-turbo", messages=MESSAGES, api_key=key, stream=True, max_tokens=200):
        if chunk.status_code != 200:
            print(f"{chunk.code}: {chunk.message}")
            if chunk.code == "InvalidApiKey":
                print(f"The box at {BASE} does not take this key. {HINT}")
            return 1
        print(chunk.output.choices[0].message.content, end="", flush=True)
    print("\n\n── openai ──")
    client = OpenAI(api_key=key, base_url=f"{BASE}/compatible-mode/v1")
    for part in client.chat.completions.create(model="qwen-turbo", messages=MESSAGES, stream=True, max_tokens=200):
        if part.choices and part.choices[0].delta.content:
            print(part.choices[0].delta.content, end="", flush=True)
    print()
    return 0


@contextmanager
def running_box() -> Generator[None]:
    """The one that answers at the port, left as it is; else one of its own."""
    if is_ready():
        print(f"Asking the box at {BASE}.")
        yield
        return
    print(f"No box answers at {BASE}; one is started for the demo. (To ask another: QWENBOX_PORT.)")
    box = subprocess.Popen([*QWENBOX, "serve", "--port", PORT])
    try:
        # The first start may fetch weights for minutes and shows it.
        while not is_ready():
            if box.poll() is not None:
                raise SystemExit("The box did not start; what it says is above.")
            time.sleep(0.3)
        yield
    finally:
        box.terminate()
        box.wait(20)


def is_ready() -> bool:
    try:
        with urllib.request.urlopen(f"{BASE}/ready", timeout=2):
            return True
    except (urllib.error.URLError, OSError):
        return False


@contextmanager
def own_key() -> Generator[str]:
    """DASHSCOPE_API_KEY, where it is set; else a key made in the data folder for this demo, and revoked at its end."""
    if key := os.environ.get("DASHSCOPE_API_KEY"):
        yield key
        return
    made = json.loads(qwenbox("keys", "create", "demo", "--expires", "1h", "--json"))
    try:
        wait_until_known(made["secret"])
        yield made["secret"]
    finally:
        qwenbox("keys", "revoke", made["id"])


def wait_until_known(key: str) -> None:
    """Or until it would have been."""
    models = urllib.request.Request(f"{BASE}/v1/models", headers={"Authorization": f"Bearer {key}"})
    deadline = time.monotonic() + LEARNS_S
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(models, timeout=2):
                return
        except urllib.error.HTTPError:
            time.sleep(0.2)


def qwenbox(*words: str) -> str:
    """What the command prints. What goes wrong it says itself, on the terminal."""
    done = subprocess.run([*QWENBOX, *words], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(done.returncode)
    return done.stdout


if __name__ == "__main__":
    raise SystemExit(main())
