"""The loop stops writing itself when the disk is slow, and goes on when only the processor was somebody else's."""

import time

from qwenbox.gateway.journal.patience import SLOW_FOR_S, SLOW_S, Patience, waits


class Machine:
    """Time and waits of a thread that a test moves."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.waited = 7
        self.patience = Patience(lambda: self.now_s, lambda: self.waited)

    def write(self, takes_s: float, *, waited: int) -> None:
        with self.patience:
            self.now_s += takes_s
            self.waited += waited


def test_patience_is_over_for_a_while_when_a_write_waited_long() -> None:
    machine = Machine()
    machine.write(SLOW_S * 2, waited=1)
    assert machine.patience.is_over
    machine.now_s += SLOW_FOR_S
    assert not machine.patience.is_over


def test_patience_lasts_when_a_long_write_waited_for_nothing_but_the_processor() -> None:
    machine = Machine()
    machine.write(SLOW_S * 2, waited=0)
    assert not machine.patience.is_over


def test_patience_lasts_when_a_write_waited_shortly() -> None:
    machine = Machine()
    machine.write(SLOW_S / 2, waited=3)
    assert not machine.patience.is_over


def test_patience_is_over_when_a_write_that_waited_long_failed() -> None:
    machine = Machine()
    try:
        with machine.patience:
            machine.now_s += SLOW_S * 2
            machine.waited += 1
            raise OSError
    except OSError:
        assert machine.patience.is_over


def test_waits_are_counted_when_the_thread_waits() -> None:
    before = waits()
    time.sleep(0.001)
    assert waits() > before
