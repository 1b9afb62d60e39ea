"""This is where a worker starts that takes another's place: `python -m qwenbox.cli.worker LISTENER LINK`, run by `qwenbox serve` only.

The two numbers are of files it inherits: the listening socket, and its link to the parent, over which its settings come.
"""

import sys

from qwenbox.cli.serve import run_worker
from qwenbox.workers.fork import adopt


def main() -> None:
    """Answer calls until the parent says so, or is gone."""
    run_worker(adopt(int(sys.argv[1])), adopt(int(sys.argv[2])))


if __name__ == "__main__":
    main()
