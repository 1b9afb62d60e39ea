"""What a run notes of itself: whole or not at all, for one process at a time; batches neither too long nor mixed."""

from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as some

from qwenbox.cli.batch import state
from qwenbox.cli.batch.spool import Pieces, Requests
from qwenbox.cli.batch.state import Part, State, StateFile
from qwenbox.client.batch_input import CHAT, Asked
from qwenbox.terms.errors import ApiError, ErrorKind

KEYS = some.tuples(some.sampled_from([CHAT, "/v1/chat/ds-test"]), some.sampled_from(["a", "b"]))


def asked(number: int, endpoint: str = CHAT, model: str = "m") -> Asked:
    return Asked(number + 1, str(number), endpoint, model, msgspec.Raw(b'{"x":1}'))


@given(some.lists(KEYS, min_size=1, max_size=60), some.integers(1, 7))
def test_each_request_is_in_one_batch_of_its_own_endpoint_and_model(keys: list[tuple[str, str]], most: int) -> None:
    parts = state.plan([(number, asked(number, *key)) for number, key in enumerate(keys)], "r", 0, most)
    assert list(range(len(keys))) == sorted(number for part in parts for number in part.numbers())
    for part in parts:
        assert {(part.endpoint, part.model)} == {keys[number] for number in part.numbers()}
        assert 1 <= part.size <= most
        assert sorted(part.numbers()) == list(part.numbers())
    assert len({part.marker for part in parts}) == len(parts)
    # No more of them than need be.
    assert len(parts) == sum(-(-keys.count(key) // most) for key in set(keys))


def test_a_batch_of_the_test_endpoint_is_short_and_none_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [100, 50] == [part.size for part in state.plan([(n, asked(n, "/v1/chat/ds-test")) for n in range(150)], "r", 0)]
    size = len(asked(0).wire()) + 1
    monkeypatch.setattr(state, "MOST_BYTES", 3 * size)
    assert [3, 3, 1] == [part.size for part in state.plan([(n, asked(n)) for n in range(7)], "r", 0)]


@given(some.sets(some.integers(0, 200)))
def test_spans_are_the_numbers_again(numbers: set[int]) -> None:
    spans = state.spans(sorted(numbers))
    assert sorted(numbers) == [number for first, count in spans for number in range(first, first + count)]
    assert all(sum(one) < other[0] for one, other in pairwise(spans))


def sample() -> State:
    part = Part(marker="m-1", endpoint=CHAT, model="m", spans=[(0, 3), (7, 1)], file_id="f", is_creating=True)
    return State(run_id="r", begun_at=1.5, input_sha256="x", options={"--model": '"m"'}, total=4, parts=[part], failed=[(2, 1)])


def test_a_state_is_read_back_and_a_broken_write_leaves_the_old_one(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "out.jsonl")
    assert file.load() is None
    file.save(sample())
    assert sample() == file.load()
    # A process that ends while it writes leaves this behind.
    (tmp_path / "out.jsonl.state.new").write_bytes(file.path.read_bytes()[:20])
    assert sample() == file.load()


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b'{"version": 1}'])
def test_what_is_no_state_is_refused(tmp_path: Path, data: bytes) -> None:
    file = StateFile(tmp_path / "out.jsonl")
    file.path.write_bytes(data)
    with pytest.raises(ApiError, match=r"out\.jsonl\.state cannot be read as the state of a run"):
        file.load()


def test_a_state_of_another_version_is_refused(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "out.jsonl")
    file.save(msgspec.structs.replace(sample(), version=99))
    with pytest.raises(ApiError, match="another version"):
        file.load()


def test_a_run_has_one_process_at_a_time(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "out.jsonl")
    with file.lock():
        with pytest.raises(ApiError) as caught, file.lock():
            pass
        assert ErrorKind.CONFLICT is caught.value.kind
    with pytest.raises(RuntimeError), file.lock():
        raise RuntimeError
    with file.lock():
        pass
    assert [] == list(tmp_path.iterdir())


@given(some.lists(some.tuples(some.integers(0, 20), some.binary(max_size=30)), max_size=30))
def test_pieces_are_what_was_put_last(tmp_path_factory: pytest.TempPathFactory, puts: list[tuple[int, bytes]]) -> None:
    with Pieces(tmp_path_factory.getbasetemp()) as pieces:
        for number, data in puts:
            pieces.put(number, data)
        last = dict(puts)
        assert [last.get(number) for number in range(25)] == [pieces.get(number) for number in range(25)]


def test_requests_are_in_the_order_of_the_input(tmp_path: Path) -> None:
    with Pieces(tmp_path) as pieces:
        requests = Requests(pieces, (asked(number) for number in range(5)))
        assert [asked(number) for number in range(5)] == list(requests)
        with pytest.raises(IndexError):
            requests[5]
