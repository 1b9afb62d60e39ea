"""Our prompts and token ids are those of llama.cpp itself."""

import random
from pathlib import Path

import msgspec
import pytest

from e2e.engines import Child, open_engine, weights_file
from qwenbox.engines import gguf
from qwenbox.engines.llamacpp.job import loading
from qwenbox.engines.prompt import PromptTemplate
from qwenbox.engines.tokenizer import Tokenizer
from qwenbox.remote import Remote
from qwenbox.terms.chat import ChatRequest, Message, Role, TextPart, ToolCall, ToolSpec

pytestmark = [pytest.mark.e2e, pytest.mark.anyio]

# One block each: Latin with marks, Cyrillic, Greek, Hebrew, Arabic, Devanagari, Thai, Tibetan, Georgian, Hangul, Ethiopic, Cherokee, Runic,
# CJK, kana, symbols, dingbats, private use, Gothic, hieroglyphs, mathematical letters, emoji, flags, CJK extension B, tags.
BLOCKS = (
    (0xC0, 0x24F), (0x400, 0x4FF), (0x370, 0x3FF), (0x590, 0x5FF), (0x600, 0x6FF), (0x900, 0x97F), (0xE00, 0xE7F), (0xF00, 0xFFF),
    (0x10A0, 0x10FF), (0xAC00, 0xD7A3), (0x1200, 0x137F), (0x13A0, 0x13FF), (0x16A0, 0x16FF), (0x4E00, 0x9FFF), (0x3040, 0x30FF),
    (0x2000, 0x206F), (0x2700, 0x27BF), (0xE000, 0xE0FF), (0x10330, 0x1034F), (0x13000, 0x1342F), (0x1D400, 0x1D7FF), (0x1F300, 0x1FAFF),
    (0x1F1E6, 0x1F1FF), (0x20000, 0x2A6DF), (0xE0020, 0xE007F),
)  # fmt: skip
FIXED = (
    "", " ", "  ", "\n", "\n\n\n", "\r\n\r\n", "\t\tx", " \n ", "a\n\n b", "hello", "Hello, World!", "don't I'LL we'Ve 'S 'ſ x'T",
    "1234567890 12,345.67", "x" * 3000, " " * 3000, "\n" * 500, "=" * 200, "def f(x):\n    return x ** 2  # ok\n", "<|im_end|>",
    "a<|im_start|>b", "<|endoftext|>", "<tool_call>", "</tool_call>{}", "<think>", "<|im_end", "|im_end|>", "<|IM_END|>",
    "é e\u0301", "ﬁ ① ½ ²", "👨‍👩‍👧‍👦🏽", "🇨🇳🇩🇪", "\u200b\u200d\ufeff", "\x00\x01\x7f", "ǅ İ ı ß ẞ", "中文，标点。“引号”",
    "한국어 テスト", "שלום עולם", "مرحبا بالعالم", "𓀀𓀁", "{\"a\": [1, 2.5e-3, null]}", "https://example.com/a?b=c&d=%20#e",
    "\u3000全角　空格", "\u00a0nbsp\u00a0", "\u2028line\u2029par", "a\u0300\u0301\u0302", "٣٤٥ ४५६ Ⅳ 〇",
    "_snake_case camelCase SHOUT", "A.B.C...", "!!??!?", "\\n \\u0041", "`code` ~~x~~ **b**",
)  # fmt: skip


def _strings() -> list[str]:
    draw = random.Random(20_240_917)
    texts = list(FIXED)
    letters = [chr(draw.randint(*draw.choice(BLOCKS))) for _ in range(4000)] + list("abc XYZ 019 .,;'\"\n\t-_/()[]{}<|>") * 20
    texts += ["".join(draw.choice(letters) for _ in range(draw.randint(1, 60))) for _ in range(200)]
    texts += ["".join(chr(draw.randint(low, high)) for _ in range(40)) for low, high in BLOCKS for _ in range(3)]
    return texts


def _says(role: Role, text: str, **fields: object) -> Message:
    return Message(role=role, content=(TextPart(text=text),), **fields)


def _conversations() -> list[ChatRequest]:
    tool = ToolSpec(
        name="get_weather",
        description="查 <天气> & more",
        parameters=b'{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}',
    )
    call = ToolCall(id="1", name="get_weather", arguments='{"city": "北京 <b>", "n": 1.5, "x": [true, null]}')
    turns = [
        (_says(Role.USER, "hi"),),
        (_says(Role.SYSTEM, "Be brief."), _says(Role.USER, "你好 🦜")),
        (_says(Role.USER, "a"), _says(Role.ASSISTANT, "b"), _says(Role.USER, "  c\n")),
        (_says(Role.SYSTEM, "s"), _says(Role.USER, "x"), _says(Role.SYSTEM, "later"), _says(Role.USER, "y")),
        (
            _says(Role.USER, "weather?"),
            Message(role=Role.ASSISTANT, tool_calls=(call, call)),
            _says(Role.TOOL, "sunny", tool_call_id="1"),
            _says(Role.TOOL, "rain", tool_call_id="2"),
            _says(Role.USER, "thanks"),
        ),
        (_says(Role.USER, "w"), _says(Role.ASSISTANT, "let me see", tool_calls=(call,)), _says(Role.TOOL, "{}", tool_call_id="1")),
    ]
    return [ChatRequest(model="m", messages=messages, tools=tools) for messages in turns for tools in ((), (tool,), (tool, tool))]


def _wire(request: ChatRequest) -> dict[str, object]:
    """The request as llama.cpp's chat endpoint takes it."""
    messages: list[dict[str, object]] = []
    for message in request.messages:
        value: dict[str, object] = {"role": message.role.value, "content": message.text}
        if message.tool_calls:
            value["tool_calls"] = [
                {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                for call in message.tool_calls
            ]
        if message.tool_call_id is not None:
            value["tool_call_id"] = message.tool_call_id
        messages.append(value)
    tools = [
        {"type": "function", "function": {"name": t.name, "description": t.description, "parameters": msgspec.Raw(t.parameters)}}
        for t in request.tools
    ]
    return {"messages": messages} | ({"tools": tools} if tools else {})


class _Tokens(msgspec.Struct):
    tokens: list[int]


class _Prompt(msgspec.Struct):
    prompt: str


async def test_ids_and_prompts_are_those_of_the_child(weights_folder: Path) -> None:
    file = gguf.read(weights_file(weights_folder))
    async with open_engine(weights_folder, slots=1, kv_tokens=512, context_tokens=512) as engine, Remote() as remote:
        tokenizer, template = Tokenizer(file), PromptTemplate(file.chat_template)
        async with engine.shared.use(loading(file)) as endpoint:
            child = Child(remote, endpoint.address, endpoint.key.reveal())
            texts = _strings()
            differing: list[str] = []
            for text in texts:
                for ours, is_special in ((tokenizer.encode(text), True), (tokenizer.encode_plain(text), False)):
                    body = {"content": text, "add_special": False, "parse_special": is_special}
                    if ours != msgspec.json.decode(await child.call("/tokenize", body), type=_Tokens).tokens:
                        differing.append(text)
            requests = _conversations()
            for request in requests:
                theirs = msgspec.json.decode(await child.call("/apply-template", _wire(request)), type=_Prompt).prompt
                assert theirs == template.render(request)
        print(f"\n{len(texts)} strings, {2 * len(texts)} tokenisations, {len(requests)} conversations: {len(differing)} differ")
        assert [] == differing
        assert len(texts) >= 300


async def test_ids_give_back_the_text_they_came_from(weights_folder: Path) -> None:
    async with open_engine(weights_folder):
        tokenizer = Tokenizer(gguf.read(weights_file(weights_folder)))

        assert [] == [text for text in _strings() if tokenizer.text(tokenizer.encode(text)) != text]
