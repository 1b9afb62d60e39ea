"""This is where requests stand that every box answers with 200: what hostile ones are mutations of."""

import base64
from typing import Any

import wire
from support import pictures

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string", "enum": ["x", "y"]}}, "required": ["city"]},
    },
}
SCHEMA = {"name": "s", "schema": {"type": "object", "properties": {"a": {"type": "integer", "minimum": 1}}, "required": ["a"]}}
HISTORY = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "call get_weather"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "x"}'}}],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
    {"role": "user", "content": "and tomorrow?"},
]
PARAMETERS = {
    "temperature": 0.7,
    "top_p": 0.9,
    "top_k": 20,
    "max_tokens": 64,
    "seed": 42,
    "stop": ["END"],
    "n": 1,
    "presence_penalty": 0.5,
    "frequency_penalty": 0.5,
    "repetition_penalty": 1.1,
    "logprobs": True,
    "top_logprobs": 2,
    "enable_thinking": False,
    "thinking_budget": 10,
}

ANTHROPIC_TOOL = {"name": "get_weather", "description": "weather", "input_schema": TOOL["function"]["parameters"]}
ANTHROPIC_HISTORY = [
    {"role": "user", "content": "call get_weather"},
    {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "a tool", "signature": ""},
            {"type": "tool_use", "id": "call_1", "name": "get_weather", "input": {"city": "x"}},
        ],
    },
    {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "call_1", "is_error": True, "content": [{"type": "text", "text": "rain"}]},
            {"type": "document", "title": "t", "source": {"type": "text", "media_type": "text/plain", "data": "x"}},
            {"type": "text", "text": "and tomorrow?"},
        ],
    },
]
RESPONSES_HISTORY = [
    {"role": "user", "content": [{"type": "input_text", "text": "call get_weather"}]},
    {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "a tool"}], "encrypted_content": None},
    {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "get_weather", "arguments": '{"city": "x"}'},
    {"type": "function_call_output", "call_id": "call_1", "output": "rain"},
    {"type": "message", "role": "assistant", "id": "msg_1", "content": [{"type": "output_text", "text": "Rain."}]},
    {"role": "user", "content": "and tomorrow?"},
]

VALID: list[tuple[str, dict[str, Any]]] = [
    (wire.ANTHROPIC, wire.anthropic(stream=True)),
    (
        wire.ANTHROPIC,
        wire.anthropic(
            system=[{"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}}],
            messages=ANTHROPIC_HISTORY,
            tools=[ANTHROPIC_TOOL],
            tool_choice={"type": "auto", "disable_parallel_tool_use": True},
            thinking={"type": "enabled", "budget_tokens": 10},
            temperature=0.7,
            top_p=0.9,
            top_k=20,
            stop_sequences=["END"],
            metadata={"user_id": "x"},
        ),
    ),
    (wire.ANTHROPIC, wire.anthropic(output_config={"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA["schema"]}})),
    (f"{wire.ANTHROPIC}/count_tokens", wire.anthropic(max_tokens=None, tools=[ANTHROPIC_TOOL], messages=ANTHROPIC_HISTORY)),
    (wire.RESPONSES, wire.responses(stream=True, store=False)),
    (
        wire.RESPONSES,
        wire.responses(
            input=RESPONSES_HISTORY,
            instructions="be brief",
            tools=[{"type": "function", **TOOL["function"], "strict": True}],
            tool_choice={"type": "function", "name": "get_weather"},
            parallel_tool_calls=False,
            reasoning={"effort": "low", "summary": "auto"},
            metadata={"a": "b"},
            temperature=0.7,
            top_p=0.9,
            truncation="auto",
            max_output_tokens=64,
            include=["reasoning.encrypted_content"],
        ),
    ),
    (wire.RESPONSES, wire.responses(text={"format": {"type": "json_schema", **SCHEMA}, "verbosity": "low"})),
    (f"{wire.RESPONSES}/input_tokens", wire.responses(input=RESPONSES_HISTORY)),
    (wire.COMPATIBLE_CHAT, wire.compatible()),
    (wire.COMPATIBLE_CHAT, wire.compatible(**PARAMETERS)),
    (wire.COMPATIBLE_CHAT, wire.compatible(messages=HISTORY, tools=[TOOL], tool_choice="auto", parallel_tool_calls=True)),
    (
        wire.COMPATIBLE_CHAT,
        wire.compatible(tools=[TOOL], tool_choice={"type": "function", "function": {"name": "get_weather"}}, stream=True),
    ),
    (wire.COMPATIBLE_CHAT, wire.compatible(response_format={"type": "json_schema", "json_schema": SCHEMA}, stop=["a"])),
    (wire.COMPATIBLE_CHAT, wire.compatible(response_format={"type": "json_object"}, stream=True, stream_options={"include_usage": True})),
    (wire.COMPATIBLE_CHAT, wire.compatible(messages=[{"role": "user", "content": [{"type": "text", "text": "hi"}]}])),
    (
        wire.COMPATIBLE_COMPLETIONS,
        {"model": "qwen-turbo", "prompt": "def f(", "max_tokens": 16, "suffix": "return", "stop": ["\n"], "logprobs": 1},
    ),
    (wire.NATIVE_CHAT, wire.native()),
    (wire.NATIVE_CHAT, wire.native(PARAMETERS | {"result_format": "message", "incremental_output": True})),
    (wire.NATIVE_CHAT, wire.native({"result_format": "text"}, input={"prompt": "hi", "history": [{"user": "a", "bot": "b"}]})),
    (wire.NATIVE_CHAT, wire.native({"tools": [TOOL], "tool_choice": "auto", "result_format": "message"}, input={"messages": HISTORY})),
    (wire.NATIVE_CHAT, wire.native({"response_format": {"type": "json_schema", "json_schema": SCHEMA}})),
    (wire.NATIVE_MULTIMODAL, wire.native(input={"messages": [{"role": "user", "content": [{"text": "hi"}]}]})),
    (
        "/api/v1/services/embeddings/text-embedding/text-embedding",
        {"model": "text-embedding-v4", "input": {"texts": ["a", "b"]}, "parameters": {"dimension": 64, "output_type": "dense&sparse"}},
    ),
    (
        "/compatible-mode/v1/embeddings",
        {"model": "text-embedding-v4", "input": ["a", "b"], "dimensions": 64, "encoding_format": "base64"},
    ),
    (
        "/api/v1/services/rerank/text-rerank/text-rerank",
        {"model": "gte-rerank-v2", "input": {"query": "a", "documents": ["a", {"text": "b"}]}, "parameters": {"top_n": 1}},
    ),
    ("/compatible-api/v1/reranks", {"model": "qwen3-rerank", "query": "a", "documents": ["a", "b"], "return_documents": True}),
    ("/api/v1/tokenizer", {"model": "qwen-turbo", "input": {"messages": [{"role": "user", "content": "hi"}], "prompt": "hi"}}),
    ("/api/v1/services/aigc/code-generation/generation", wire.native()),
    ("/compatible-api/v1/rerank", {"model": "qwen3-rerank", "query": "a", "documents": ["a", "b"], "top_n": 1}),
    ("/compatible-mode/v1/images/generations", {"model": "qwen-image", "prompt": "a cat", "n": 1, "size": "512x512", "seed": 1}),
    ("/api/v1/tokens", {}),
]

_DRAWN = {"model": "wan2.2-t2i-flash", "input": {"prompt": "a cat"}, "parameters": {"size": "512*512", "n": 1, "seed": 1}}
_PICTURE = f"data:image/png;base64,{base64.b64encode(pictures.drawn()).decode()}"
_AS_TASK = {"x-dashscope-async": "enable"}


def _form(name: str) -> tuple[bytes, dict[str, str]]:
    """A file in a form's field of this name."""
    parts = [b'name="purpose"\r\n\r\nbatch', f'name="{name}"; filename="a.jsonl"\r\n\r\n{{}}\n'.encode()]
    body = b"".join(b"--cut-here\r\nContent-Disposition: form-data; " + part + b"\r\n" for part in parts) + b"--cut-here--\r\n"
    return body, {"content-type": "multipart/form-data; boundary=cut-here"}


# Those that need a header, no JSON, or something that is there: path, body, headers, and the status they get.
OTHERS: list[tuple[str, Any, dict[str, str], int]] = [
    ("/api/v1/services/aigc/text2image/image-synthesis", _DRAWN, _AS_TASK, 200),
    (
        "/api/v1/services/aigc/image-generation/generation",
        {
            "model": "wan2.6-t2i",
            "input": {"messages": [{"role": "user", "content": [{"text": "a cat"}]}]},
            "parameters": {"size": "512*512"},
        },
        _AS_TASK,
        200,
    ),
    (
        "/api/v1/services/aigc/image2image/image-synthesis",
        {**_DRAWN, "model": "wanx2.1-imageedit", "input": {"prompt": "a cat", "function": "doodle", "base_image_url": _PICTURE}},
        _AS_TASK,
        200,
    ),
    ("/api/v1/tasks/1111/cancel", {}, {}, 400),
    ("/api/v1/files", *_form("files"), 200),
    ("/compatible-mode/v1/files", *_form("file"), 200),
    (
        "/compatible-mode/v1/batches",
        {"input_file_id": "file-batch-1", "endpoint": "/v1/chat/completions", "completion_window": "24h", "metadata": {"ds_name": "a"}},
        {},
        404,
    ),
    ("/compatible-mode/v1/batches/batch_1/cancel", {}, {}, 404),
]
