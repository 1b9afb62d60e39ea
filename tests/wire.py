"""This is where tests say exactly which bytes they send: one HTTP request to a box, no SDK between."""

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from boxes import Box

NATIVE_CHAT = "/api/v1/services/aigc/text-generation/generation"
NATIVE_MULTIMODAL = "/api/v1/services/aigc/multimodal-generation/generation"
COMPATIBLE_CHAT = "/compatible-mode/v1/chat/completions"
COMPATIBLE_COMPLETIONS = "/compatible-mode/v1/completions"
RESPONSES = "/compatible-mode/v1/responses"
ANTHROPIC = "/apps/anthropic/v1/messages"


@dataclass(frozen=True)
class Heard:
    """A whole response. headers: names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> Mapping[str, Any]:
        """code, message and so on, in whichever dialect."""
        return self.json.get("error", self.json)


def call(
    box: Box,
    method: str,
    path: str,
    body: Any = None,
    *,
    headers: Mapping[str, str] | None = None,
    key: str | None = "",
    timeout_s: float = 30.0,
) -> Heard:
    """One request. body: bytes as they are, anything else as JSON. key: "" is the box's own, None sends none."""
    sent = {"content-type": "application/json", **(headers or {})}
    if key is not None:
        sent["authorization"] = f"Bearer {key or box.key}"
    data = body if isinstance(body, bytes) or body is None else json.dumps(body, ensure_ascii=False).encode()
    connection = http.client.HTTPConnection("127.0.0.1", box.port, timeout=timeout_s)
    try:
        connection.request(method, path, data, sent)
        response = connection.getresponse()
        return Heard(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
    finally:
        connection.close()


def post(box: Box, path: str, body: Any, **more: Any) -> Heard:
    return call(box, "POST", path, body, **more)


def native(parameters: Mapping[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """A valid native chat body; fields replace, None removes."""
    body = {"model": "qwen-turbo", "input": {"messages": [{"role": "user", "content": "你好"}]}, "parameters": dict(parameters or {})}
    return {name: value for name, value in {**body, **fields}.items() if value is not None}


def compatible(**fields: Any) -> dict[str, Any]:
    """A valid OpenAI-compatible chat body; fields replace, None removes."""
    body = {"model": "qwen-turbo", "messages": [{"role": "user", "content": "你好"}]}
    return {name: value for name, value in {**body, **fields}.items() if value is not None}


def responses(**fields: Any) -> dict[str, Any]:
    """A valid Responses body; fields replace, None removes."""
    body = {"model": "qwen-turbo", "input": "你好"}
    return {name: value for name, value in {**body, **fields}.items() if value is not None}


def anthropic(**fields: Any) -> dict[str, Any]:
    """A valid body of Anthropic's Messages; fields replace, None removes."""
    body = {"model": "qwen-turbo", "max_tokens": 64, "messages": [{"role": "user", "content": "你好"}]}
    return {name: value for name, value in {**body, **fields}.items() if value is not None}
