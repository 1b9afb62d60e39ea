"""Asks the document's question through both official SDKs, on a box that is started for it."""

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request

import dashscope
from dashscope import Generation
from openai import OpenAI

PORT = os.environ.get("QWENBOX_PORT", "8765")
BASE = f"http://127.0.0.1:{PORT}"
KEY = "sk-demo"
MESSAGES = [
    {"role": "system", "content": "你是一个有帮助的助手。"},
    {"role": "user", "content": "请介绍一下自然语言处理技术。"},
]


def main() -> int:
    environment = {**os.environ, "QWENBOX_API_KEY": KEY, "QWENBOX_PORT": PORT}
    box = subprocess.Popen([sys.executable, "-m", "qwenbox", "serve"], env=environment)
    try:
        wait(box)
        print("\n── dashscope ──")
        dashscope.base_http_api_url = f"{BASE}/api/v1"
        for chunk in Generation.call(model="qwen-turbo", messages=MESSAGES, api_key=KEY, stream=True, max_tokens=200):
            if chunk.status_code != 200:
                print(chunk.code, chunk.message)
                return 1
            print(chunk.output.choices[0].message.content, end="", flush=True)
        print("\n\n── openai ──")
        client = OpenAI(api_key=KEY, base_url=f"{BASE}/compatible-mode/v1")
        for part in client.chat.completions.create(model="qwen-turbo", messages=MESSAGES, stream=True, max_tokens=200):
            if part.choices and part.choices[0].delta.content:
                print(part.choices[0].delta.content, end="", flush=True)
        print()
        return 0
    finally:
        box.terminate()
        box.wait(20)


def wait(box: subprocess.Popen[bytes]) -> None:
    """Until the box is ready; the first start may fetch weights for minutes and shows it."""
    while box.poll() is None:
        try:
            with urllib.request.urlopen(f"{BASE}/ready", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    raise SystemExit("the box did not start")


if __name__ == "__main__":
    raise SystemExit(main())
