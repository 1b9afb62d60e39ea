"""Which paths are of endpoints that are not served."""

import pytest

from qwenbox.dialects.unserved import Unserved

FAMILY = Unserved(name="x", paths=("/audio", "/responses/{id}/cancel"), why="y")


@pytest.mark.parametrize("path", ["/audio", "/audio/", "/audio/speech/a/b", "/responses/r/cancel", "/responses/r/cancel/x"])
def test_path_is_not_served_when_it_is_one_of_the_family_or_below(path: str) -> None:
    assert FAMILY.has(path)


@pytest.mark.parametrize(
    "path", ["", "/", "/audios", "/x/audio", "/responses/r", "/responses//cancel", "/responses/a/b/cancel", "/responses/{id}"]
)
def test_path_is_none_of_the_family_when_a_segment_differs(path: str) -> None:
    assert not FAMILY.has(path)
