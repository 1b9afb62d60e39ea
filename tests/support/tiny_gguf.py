"""A GGUF file without tensors: metadata of a tiny Qwen-like model, written by hand so that readers meet real bytes."""

import struct
from pathlib import Path

Value = int | bool | str | list[int] | list[str]

TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)


def letters() -> list[str]:
    """GPT-2's byte alphabet in its own order: printable bytes first."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + place) for place, _ in enumerate(rest)]


MERGES = ["h e", "l l", "he ll", "hell o", "Ġ w", "o r", "Ġw or", "l d", "Ġwor ld", "u s", "us er"]
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"]
USER_DEFINED = ["<tool_call>", "</tool_call>"]
ORDINARY = letters() + [merge.replace(" ", "") for merge in MERGES]

TINY: dict[str, Value] = {
    "general.architecture": "qwen2",
    "general.name": "Tiny",
    "qwen2.context_length": 4096,
    "qwen2.block_count": 2,
    "qwen2.embedding_length": 32,
    "qwen2.attention.head_count": 4,
    "qwen2.attention.head_count_kv": 2,
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "qwen2",
    "tokenizer.ggml.tokens": [*ORDINARY, *CONTROL, *USER_DEFINED],
    "tokenizer.ggml.token_type": [1] * len(ORDINARY) + [3] * len(CONTROL) + [4] * len(USER_DEFINED),
    "tokenizer.ggml.merges": MERGES,
    "tokenizer.ggml.eos_token_id": len(ORDINARY) + 2,
    "tokenizer.ggml.bos_token_id": len(ORDINARY),
    "tokenizer.ggml.add_bos_token": False,
    "tokenizer.chat_template": TEMPLATE,
}


def write_gguf(path: Path, values: dict[str, Value]) -> Path:
    body = b"".join(_string(key) + _typed(value) for key, value in values.items())
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, len(values)) + body)
    return path


def _typed(value: Value) -> bytes:
    match value:
        case bool():
            return struct.pack("<I?", 7, value)
        case int():
            return struct.pack("<II", 4, value)
        case str():
            return struct.pack("<I", 8) + _string(value)
        case list():
            kind = 8 if value and isinstance(value[0], str) else 5
            entries = b"".join(_string(entry) if isinstance(entry, str) else struct.pack("<i", entry) for entry in value)
            return struct.pack("<IIQ", 9, kind, len(value)) + entries


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data
