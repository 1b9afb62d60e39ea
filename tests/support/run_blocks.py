"""Runs one page's Python blocks as its reader would, one after the other; names live on. `python run_blocks.py PAGE BLOCKS.json`.

What a page takes for granted is here already: the imported SDKs, KEY and admin_key. `await` may stand outside of functions.
"""

import ast
import asyncio
import inspect
import json
import os
import sys
from pathlib import Path

import dashscope
import openai


async def run(page: str, blocks: list[dict[str, str | int]]) -> None:
    names: dict[str, object] = {
        "__name__": "__main__",
        "openai": openai,
        "dashscope": dashscope,
        "KEY": os.environ["OPENAI_API_KEY"],
        "admin_key": os.environ["QWENBOX_ADMIN_KEY"],
    }
    for block in blocks:
        # Empty lines first, so that a traceback tells the page's own line.
        source = "\n" * (int(block["line"]) - 1) + str(block["text"])
        code = compile(source, page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        if code.co_flags & inspect.CO_COROUTINE:
            await eval(code, names)
        else:
            await asyncio.to_thread(exec, code, names)


asyncio.run(run(sys.argv[1], json.loads(Path(sys.argv[2]).read_text("utf-8"))))
