"""The loop stops writing itself when the disk is slow, and goes on when only the processor was somebody else's."""

import time

from qwenbox.gateway.journal.disk import SLOW_FOR_S, SLOW_S, Disk, waits


class Machine:
    """Time and waits of a thread that a test moves."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.waited = 7
        self.disk = Disk(lambda: self.now_s, lambda: self.waited)

    def write(self, takes_s: float, *, waited: int) -> None:
        with self.disk:
            self.now_s += takes_s
            self.waited += waited


def test_disk_is_slow_for_a_while_when_a_write_waited_long() -> None:
    machine = Machine()
    machine.write(SLOW_S * 2, waited=1)
    assert machine.disk.is_slow
    machine.now_s += SLOW_FOR_S
    assert not machine.disk.is_slow


def test_disk_is_not_slow_when_a_long_write_waited_for_nothing_but_the_processor() -> None:
    machine = Machine()
    machine.write(SLOW_S * 2, waited=0)
    assert not machine.disk.is_slow


def test_disk_is_not_slow_when_a_write_waited_shortly() -> None:
    machine = Machine()
    machine.write(SLOW_S / 2, waited=3)
    assert not machine.disk.is_slow


def test_disk_is_slow_when_a_write_that_waited_long_failed() -> None:
    machine = Machine()
    try:
        with machine.disk:
            machine.now_s += SLOW_S * 2
            machine.waited += 1
            raise OSError
    except OSError:
        assert machine.disk.is_slow


def test_waits_are_counted_when_the_thread_waits() -> None:
    before = waits()
    time.sleep(0.001)
    assert waits() > before
