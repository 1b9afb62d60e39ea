"""This is where a process knows which of several workers it is."""

import msgspec

from qwenbox.workers.link import Link


class Seat(msgspec.Struct, frozen=True, kw_only=True):
    """index: 1 to count, the same for whoever takes a dead worker's place. link: to the parent, who has the engines."""

    index: int
    count: int
    link: Link
