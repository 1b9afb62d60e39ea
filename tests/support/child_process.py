"""A small child of its own for tests of supervision: it keeps the contract of `qwenbox.engines.child` and obeys its settings.

python -m support.child_process — behaviour: "serve", "crash" (end before it is ready), "silent" (never ready), "babble" (no JSON),
"deaf" (does not end when stdin closes).
"""

import json
import os
import signal
import sys
import time


def main() -> None:
    settings = json.loads(sys.stdin.readline())
    behaviour = settings["behaviour"]
    print("starting", file=sys.stderr, flush=True)
    if behaviour == "crash":
        sys.exit(3)
    if behaviour == "silent":
        sys.stdin.read()
    if behaviour == "babble":
        print("hello?", flush=True)
        time.sleep(60)
    print(json.dumps({"address": json.dumps(sorted(os.environ))}), flush=True)
    if behaviour == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(60)
    sys.stdin.read()


if __name__ == "__main__":
    main()
