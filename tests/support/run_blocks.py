"""Runs pages' Python blocks as their reader would, one after the other; a page's names live on until its end.

`python run_blocks.py PAGES.json`: a list of {"page", "blocks": [{"line", "text"}], "folder"}. Each page has a process of its own, forked
after the SDKs are imported, as that is what takes long. What a page prints is in FOLDER/output, and how it ended in FOLDER/status.

What a page takes for granted is there: the imported SDKs, KEY and admin_key. `await` may stand outside of functions.
"""

import ast
import asyncio
import inspect
import json
import os
import sys
import traceback
from pathlib import Path

import dashscope
import openai


def run(page: str, blocks: list[dict[str, str | int]]) -> None:
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

            async def awaited(code: object = code) -> None:
                await eval(code, names)

            asyncio.run(awaited())
        else:
            exec(code, names)


def run_in_a_child(page: str, blocks: list[dict[str, str | int]], folder: Path) -> None:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.chdir(folder)
            output = os.open("output", os.O_WRONLY | os.O_CREAT, 0o600)
            os.dup2(output, 1)
            os.dup2(output, 2)
            run(page, blocks)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    _, ended = os.waitpid(child, 0)
    (folder / "status").write_text(str(os.waitstatus_to_exitcode(ended)))


for each in json.loads(Path(sys.argv[1]).read_text("utf-8")):
    run_in_a_child(each["page"], each["blocks"], Path(each["folder"]))
