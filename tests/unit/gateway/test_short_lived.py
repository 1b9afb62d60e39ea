"""Short-lived keys: their parent's rights for a while, and nothing that was tampered with."""

import base64

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwenbox.clock import SystemClock, TestClock
from qwenbox.gateway.short_lived import ShortLivedKeys
from qwenbox.terms.caller import Caller
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.limits import Limits
from qwenbox.terms.secret import Secret

PARENT = Caller(account_id="acc-1", key_id="key-1", models=frozenset({"qwen-turbo"}), tier="free", limits=Limits(rpm=3))
SECRET = Secret("box secret")


class Still:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.at = 1_000.25

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at

    async def sleep(self, seconds_s: float) -> None: ...


class Parents:
    """Keys by id, as the valid ones of a box."""

    def __init__(self, *callers: Caller) -> None:
        self.valid = {caller.key_id: caller for caller in callers}

    def caller(self, key_id: str) -> Caller:
        if key_id not in self.valid:
            raise ApiError(ErrorKind.UNAUTHENTICATED)
        return self.valid[key_id]


def refusal(keys: ShortLivedKeys, secret: str) -> ErrorKind:
    with pytest.raises(ApiError) as refused:
        keys.verify(secret)
    return refused.value.kind


def test_verify_gives_the_parents_rights_and_bill() -> None:
    keys = ShortLivedKeys(SECRET, Parents(PARENT), Still())
    key = keys.issue(PARENT, 60)
    assert key.secret.reveal().startswith("st-")
    assert msgspec.structs.replace(PARENT, expires_at=float(key.expires_at), is_short_lived=True) == keys.verify(key.secret.reveal())


def test_verify_refuses_from_the_end_on() -> None:
    clock = Still()
    keys = ShortLivedKeys(SECRET, Parents(PARENT), clock)
    key = keys.issue(PARENT, 60)
    clock.at = key.expires_at - 0.001
    keys.verify(key.secret.reveal())
    clock.at = key.expires_at
    assert ErrorKind.UNAUTHENTICATED == refusal(keys, key.secret.reveal())


def test_key_lasts_at_least_as_long_as_asked_and_less_than_a_second_more() -> None:
    key = ShortLivedKeys(SECRET, Parents(PARENT), Still()).issue(PARENT, 60)
    assert 1_061 == key.expires_at


def test_key_ends_with_its_parent_when_that_ends_sooner() -> None:
    clock = Still()
    parent = msgspec.structs.replace(PARENT, expires_at=1_010.0)
    assert 1_010 == ShortLivedKeys(SECRET, Parents(parent), clock).issue(parent, 60).expires_at


def test_verify_refuses_when_the_parent_was_revoked() -> None:
    parents = Parents(PARENT)
    keys = ShortLivedKeys(SECRET, parents, Still())
    key = keys.issue(PARENT, 60)
    parents.valid.clear()
    assert ErrorKind.UNAUTHENTICATED == refusal(keys, key.secret.reveal())


def test_verify_works_in_another_process_with_the_same_secret_only() -> None:
    here, there = (ShortLivedKeys(SECRET, Parents(PARENT), Still()) for _ in range(2))
    stranger = ShortLivedKeys(Secret("another"), Parents(PARENT), Still())
    secret = here.issue(PARENT, 60).secret.reveal()
    assert PARENT.key_id == there.verify(secret).key_id
    assert ErrorKind.UNAUTHENTICATED == refusal(stranger, secret)


def test_issue_is_forbidden_when_the_caller_came_with_a_short_lived_key() -> None:
    keys = ShortLivedKeys(SECRET, Parents(PARENT), Still())
    child = keys.verify(keys.issue(PARENT, 60).secret.reveal())
    with pytest.raises(ApiError) as refused:
        keys.issue(child, 60)
    assert ErrorKind.FORBIDDEN == refused.value.kind


def test_two_keys_of_one_moment_differ() -> None:
    keys = ShortLivedKeys(SECRET, Parents(PARENT), Still())
    assert keys.issue(PARENT, 60).secret != keys.issue(PARENT, 60).secret


def test_verify_follows_the_test_clock() -> None:
    clock = TestClock(SystemClock())
    keys = ShortLivedKeys(SECRET, Parents(PARENT), clock)
    secret = keys.issue(PARENT, 1_800).secret.reveal()
    keys.verify(secret)
    clock.reach(1_801.0)
    assert ErrorKind.UNAUTHENTICATED == refusal(keys, secret)


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_verify_refuses_when_any_byte_was_changed(place: int, flip: int) -> None:
    keys = ShortLivedKeys(SECRET, Parents(PARENT), Still())
    text = keys.issue(PARENT, 60).secret.reveal().removeprefix("st-")
    data = bytearray(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    data[place % len(data)] ^= flip
    assert ErrorKind.UNAUTHENTICATED == refusal(keys, f"st-{base64.urlsafe_b64encode(data).decode()}")


@given(st.one_of(st.text(max_size=600), st.binary(max_size=200).map(lambda data: base64.urlsafe_b64encode(data).decode())))
def test_verify_refuses_whatever_else_comes(text: str) -> None:
    keys = ShortLivedKeys(SECRET, Parents(PARENT), Still())
    assert ErrorKind.UNAUTHENTICATED == refusal(keys, text)
    assert ErrorKind.UNAUTHENTICATED == refusal(keys, f"st-{text}")
