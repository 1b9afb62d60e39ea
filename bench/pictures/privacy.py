"""This is where the picture of docs/practices/privacy.md is measured and drawn: python bench/pictures/privacy.py"""

import random
import sys
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from qwenbox.gateway.redaction.config import RedactionConfig  # noqa: E402
from qwenbox.gateway.redaction.detector import detector  # noqa: E402
from support.personal_data import ALIKE, TRUE, running  # noqa: E402

SEED, COUNT, WIDTH, ROW = 20_260_101, 2_000, 640, 26
TEXTS = {
    "English": "We talked about this yesterday and nothing else has changed since then. ",
    "中文": "昨天下午我们开会讨论了项目进度，客户反映系统有时打不开。",
    "code": "for i in range(10): x[i] = foo(a, b) + 0x1f; // 2024-11-23 v1.2.3\n",
}


def measure() -> tuple[dict[str, tuple[float, float]], dict[str, float]]:
    """Recall and precision by kind, CPU µs per KB by text."""
    draw, find = random.Random(SEED), detector(RedactionConfig())
    found: Counter[str] = Counter()
    right: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    for makers, is_true in ((TRUE, True), (ALIKE, False)):
        for kind, make in makers.items():
            for _ in range(COUNT):
                text, start, end = running(draw, make(draw))
                hits = find(text)
                found[kind] += is_true and any(hit.kind == kind and hit.start <= start and end <= hit.end for hit in hits)
                for hit in hits:
                    (right if is_true and hit.kind == kind and hit.start < end and start < hit.end else wrong)[hit.kind] += 1
    costs: dict[str, float] = {}
    for name, text in TEXTS.items():
        text *= 100_000 // len(text)
        begun = time.process_time()
        find(text)
        costs[name] = (time.process_time() - begun) * 1e6 / (len(text.encode()) / 1024)
    return {kind: (found[kind] / COUNT, right[kind] / (right[kind] + wrong[kind])) for kind in TRUE}, costs


def draw_picture(rates: dict[str, tuple[float, float]], costs: dict[str, float]) -> str:
    lines = [f"recall and precision, {COUNT:,} true and {COUNT:,} alike of each kind (bars from 95 %)"]
    bars: list[tuple[str, float, str, str]] = []
    for kind, (recall, precision) in rates.items():
        bars.append((kind, (recall - 0.95) / 0.05, f"recall {recall:.2%}", "#615ced"))
        bars.append(("", (precision - 0.95) / 0.05, f"precision {precision:.2%}", "#9aa0a6"))
    most = max(costs.values())
    bars += [(f"cost, {name}", cost / most, f"{cost:.0f} µs per KB", "#e8710a") for name, cost in costs.items()]
    height = ROW * (len(bars) + 2)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" font-family="sans-serif" font-size="13">']
    parts += ['<rect width="100%" height="100%" fill="white"/>', f'<text x="10" y="20">{lines[0]}</text>']
    for row, (name, share, label, colour) in enumerate(bars, 1):
        y = ROW * row + 10
        parts.append(f'<text x="10" y="{y + 14}">{name}</text>')
        parts.append(f'<rect x="130" y="{y}" width="{max(1.0, 330 * share):.0f}" height="18" fill="{colour}"/>')
        parts.append(f'<text x="470" y="{y + 14}">{label}</text>')
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    measured = measure()
    print(measured)
    (ROOT / "docs" / "practices" / "privacy.svg").write_text(draw_picture(*measured), "utf-8")
