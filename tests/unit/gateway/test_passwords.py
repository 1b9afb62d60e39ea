"""Passwords: stored as argon2id, compared at the same pace for nobody."""

import pytest

from qwenbox.gateway.passwords import _NOBODY, Passwords
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.secret import Secret

pytestmark = pytest.mark.anyio


async def test_password_is_right_only_for_itself() -> None:
    passwords = Passwords()
    stored = await passwords.hashed(Secret("päss wörd"))
    assert stored.startswith("$argon2id$")
    assert "wörd" not in stored
    assert [True, False] == [await passwords.is_right(stored, Secret(text)) for text in ("päss wörd", "päss word")]
    assert stored != await passwords.hashed(Secret("päss wörd"))


async def test_surrogates_are_a_password_like_any_other() -> None:
    passwords = Passwords()
    assert await passwords.is_right(await passwords.hashed(Secret("\udc80" * 8)), Secret("\udc80" * 8))


@pytest.mark.parametrize("text", ["", "1234567", "x" * 1_025])
async def test_bad_password_is_refused(text: str) -> None:
    with pytest.raises(ApiError) as refused:
        await Passwords().hashed(Secret(text))
    assert (ErrorKind.INVALID_REQUEST, "password") == (refused.value.kind, refused.value.param)


@pytest.mark.parametrize("stored", [None, "", "no hash"])
async def test_nobody_has_no_right_password(stored: str | None) -> None:
    assert not await Passwords().is_right(stored, Secret("correct horse"))


async def test_nobody_is_compared_at_todays_costs() -> None:
    # Else the time of an answer would tell names that exist from those that do not.
    assert not Passwords().is_outdated(_NOBODY)
