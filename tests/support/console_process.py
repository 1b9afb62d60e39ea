"""A stand-in for the console's process, for tests of its start: it listens where it is told and answers with what it was told.

python -m support.console_process — a base_url of http://crash ends it before it listens, saying something that is not for visitors.
"""

import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import msgspec

from qwenbox.console.settings import Opening


def main() -> None:
    opening = msgspec.json.decode(sys.stdin.buffer.readline(), type=Opening)
    if opening.base_url == "http://crash":
        sys.exit(f"Traceback: {opening.admin_key}")
    told = msgspec.json.encode(opening)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(told)

    try:
        server = HTTPServer((opening.host, opening.port), Handler)
    except OSError as error:
        sys.exit(f"The console can't listen on {opening.host}:{opening.port}: {error.strerror}.")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(msgspec.json.encode({"address": f"http://{opening.host}:{server.server_port}"}).decode(), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
