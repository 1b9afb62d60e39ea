"""Draws docs/practices/prompts.svg: input tokens of a growing conversation, whole and with a budget, counted by the 0.5B weights.

Run: python bench/pictures/prompts.py (needs `qwenbox pull qwen-turbo`). Takes a few seconds.
"""

from functools import partial
from pathlib import Path

import anyio
import msgspec

from qwenbox.app.catalog import open_catalog
from qwenbox.config import load
from qwenbox.gateway.catalog import complete_chat
from qwenbox.gateway.counting import about_input
from qwenbox.gateway.thrift import trim
from qwenbox.terms.caller import Caller, Thrift
from qwenbox.terms.chat import ChatRequest, Message, Role, TextPart

OUT = Path(__file__).parents[2] / "docs" / "practices" / "prompts.svg"
TURNS = 40
BUDGET = 1_000
QUESTION = "Question {0}:   how do I sort a list of {0} names by their last letter, and why does that work?\n\n\n"
ANSWER = "Use a key function: names.sort(key=lambda name: name[-1]). It looks at the last letter of each of the {0} names only. " * 2
WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 640, 300, 60, 40, 30


def said(role: Role, text: str) -> Message:
    return Message(role=role, content=(TextPart(text=text),))


async def measure() -> list[tuple[int, int]]:
    """Tokens of the whole conversation and of what is sent, after each question."""
    caller = Caller(account_id="", key_id="")
    sums: list[tuple[int, int]] = []
    async with open_catalog(load({"profile": "laptop"})) as catalog:
        model = catalog.resolve("qwen-turbo", caller)
        messages = (said(Role.SYSTEM, "You help with Python. Be brief."),)
        for turn in range(1, TURNS + 1):
            messages = (*messages, said(Role.USER, QUESTION.format(turn)))
            request = ChatRequest(model="qwen-turbo", messages=messages)
            request = complete_chat(request, model.entry.card, caller, load().compat)
            count = partial(about_input, model)
            trimmed = await trim(request, Thrift(history_tokens=BUDGET, collapses_whitespace=True), count)
            sums.append((await count(request), await count(trimmed.request)))
            messages = (*messages, said(Role.ASSISTANT, ANSWER.format(turn)))
    return sums


def draw(sums: list[tuple[int, int]]) -> str:
    most = max(whole for whole, _ in sums)
    across, up = (WIDTH - LEFT - 20) / (len(sums) - 1), (HEIGHT - BOTTOM - TOP) / most

    def line(values: list[int], colour: str) -> str:
        points = " ".join(f"{LEFT + place * across:.1f},{HEIGHT - BOTTOM - value * up:.1f}" for place, value in enumerate(values))
        return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'

    wholes, sents = [whole for whole, _ in sums], [sent for _, sent in sums]
    saved = 100 - 100 * sum(sents) / sum(wholes)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<path d="M{LEFT},{TOP}V{HEIGHT - BOTTOM}H{WIDTH - 20}" fill="none" stroke="#888"/>',
        line(wholes, "#c0392b"),
        line(sents, "#2471a3"),
        f'<text x="{LEFT + 10}" y="{TOP - 10}">Input tokens per call: {sum(wholes):,} whole, {sum(sents):,} with a budget of {BUDGET:,} '
        f"({saved:.0f} % less)</text>",
        f'<text x="{LEFT - 8}" y="{TOP + 5}" text-anchor="end">{most:,}</text>',
        f'<text x="{LEFT - 8}" y="{HEIGHT - BOTTOM - BUDGET * up:.0f}" text-anchor="end">{BUDGET:,}</text>',
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 12}" text-anchor="middle">question 1 to {len(sums)}</text>',
        "</svg>\n",
    ]
    return "\n".join(parts)


if __name__ == "__main__":
    measured = anyio.run(measure)
    OUT.write_text(draw(measured), "utf-8")
    print(msgspec.json.encode({"whole": sum(w for w, _ in measured), "sent": sum(s for _, s in measured), "last": measured[-1]}).decode())
