"""This is where the console's process begins.

python -m qwenbox.console — reads one line of JSON (`Opening`) from stdin, prints one line {"address": …} on stdout once it listens, and
ends when stdin closes.
"""

import sys

import msgspec

from qwenbox.console.server import serve
from qwenbox.console.settings import Opening

if __name__ == "__main__":
    serve(msgspec.json.decode(sys.stdin.buffer.readline(), type=Opening))
