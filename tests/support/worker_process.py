"""A worker without a box, for tests of its parent: `python worker_process.py LISTENER LINK MANNER`.

MANNER: "good" serves until its parent is gone or SIGTERM comes; "never" ends before it serves; "stubborn" ignores SIGTERM;
"copy" is good when it is the first process in its seat, marked by the file its configuration names, and else "never".
"""

import signal
import sys
from pathlib import Path

import anyio

from qwenbox.workers.fork import adopt
from qwenbox.workers.link import Link


async def main() -> None:
    link = await Link.open(adopt(int(sys.argv[2])))
    begin = await link.begin()
    manner = sys.argv[3]
    if begin is None:
        return
    if manner == "copy":
        mark = Path(begin.config.decode()) / f"seat-{begin.index}"
        manner = "never" if mark.exists() else "good"
        with mark.open("a") as file:
            file.write("started\n")
    if manner == "never":
        sys.exit(3)
    if manner == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    link.serving()
    await link.lost()


if __name__ == "__main__":
    anyio.run(main)
