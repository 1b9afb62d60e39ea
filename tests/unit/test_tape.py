"""Recording and playing of exchanges, byte for byte."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import msgspec
import pytest
from anyio.abc import SocketStream
from hypothesis import given
from hypothesis import strategies as st

from qwenbox import tape
from qwenbox.clock import SystemClock
from qwenbox.remote import RemoteRequest
from qwenbox.tape import Mode, Pace, TapeConfig, TapeRemote
from qwenbox.terms.errors import ApiError, ErrorKind

pytestmark = pytest.mark.anyio

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nset-cookie: secret=1\r\ntransfer-encoding: chunked\r\n\r\n"
PIECES = (b"data: \xe4\xbd", b"\xa0\n\n", b"\x00\xff\r\n", "data: 好\n\n".encode())


@asynccontextmanager
async def server(*, is_cut: bool = False) -> AsyncGenerator[str]:
    """Sends PIECES as chunks, one at a time; is_cut: and hangs up before the last."""

    async def answer(stream: SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(HEAD)
            for piece in PIECES[: -1 if is_cut else None]:
                await anyio.sleep(0.01)
                await stream.send(b"%x\r\n%s\r\n" % (len(piece), piece))
            if not is_cut:
                await stream.send(b"0\r\n\r\n")

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, answer)
        yield f"http://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}/v1/chat"
        tasks.cancel_scope.cancel()


def question(url: str, body: bytes = b'{"a": 1, "b": [2]}') -> RemoteRequest:
    return RemoteRequest(method="POST", url=url, body=body, headers={"authorization": "Bearer sk-secret"})


async def heard(remote: TapeRemote, request: RemoteRequest) -> list[bytes]:
    async with remote.stream(request) as answer:
        return [piece async for piece in answer]


def opened(file: Path, mode: Mode) -> TapeRemote:
    return TapeRemote(TapeConfig(file=str(file), mode=mode, pace=Pace.FAST), file, SystemClock())


async def test_bytes_come_again_as_they_came(tmp_path: Path) -> None:
    file = tmp_path / "tape.jsonl"
    async with server() as url, opened(file, Mode.RECORD) as recording:
        first = await heard(recording, question(url))
    async with opened(file, Mode.REPLAY) as playing:
        # Another address, and the same JSON written in another way.
        again = await heard(playing, question("http://far.example/v1/chat", b'{"b":[2],"a":1}'))

    assert again == first
    assert b"".join(again) == b"".join(PIECES)
    assert b"secret" not in file.read_bytes()


async def test_broken_exchange_breaks_again(tmp_path: Path) -> None:
    file = tmp_path / "tape.jsonl"
    failures: list[ApiError] = []
    async with server(is_cut=True) as url:
        for mode in (Mode.RECORD, Mode.REPLAY):
            async with opened(file, mode) as remote:
                with pytest.raises(ApiError) as caught:
                    await heard(remote, question(url))
                failures.append(caught.value)

    assert failures[0].kind is failures[1].kind is ErrorKind.ENGINE_FAILED
    assert failures[0].message == failures[1].message


async def test_unknown_question_says_how_to_record_it(tmp_path: Path) -> None:
    file = tmp_path / "tape.jsonl"
    file.touch()
    async with opened(file, Mode.REPLAY) as playing:
        with pytest.raises(ApiError, match="record it") as caught:
            await heard(playing, question("http://far.example/v1/chat"))
    assert caught.value.is_final


async def test_exchange_left_in_the_middle_is_not_kept(tmp_path: Path) -> None:
    file = tmp_path / "tape.jsonl"
    async with server() as url, opened(file, Mode.RECORD) as recording:
        with pytest.raises(RuntimeError, match="left"):
            async with recording.stream(question(url)) as answer:
                await anext(answer)
                raise RuntimeError("left")
    assert not file.exists()


async def test_recordings_of_one_question_follow_each_other(tmp_path: Path) -> None:
    file = tmp_path / "tape.jsonl"
    request = question("http://far.example/v1/chat")
    rows = [
        tape.Recording(method="POST", path="/v1/chat", digest=tape.digest(request), body=tape.Piece(at_s=0), status=status)
        for status in (429, 200)
    ]
    file.write_bytes(b"\n".join(map(msgspec.json.encode, rows)))
    statuses: list[int] = []
    async with opened(file, Mode.REPLAY) as playing:
        for _ in range(3):
            async with playing.stream(request) as answer:
                statuses.append(answer.status)
    assert statuses == [429, 200, 200]


@given(data=st.binary(max_size=300) | st.from_regex(rb'\{("[a-z]*":("[a-z]*"|\d+),?)*\}\n?'))
def test_any_file_is_a_tape_or_told(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("fuzz") / "tape.jsonl"
    file.write_bytes(data)
    try:
        tape.read(file)
    except ValueError as error:
        assert "line" in str(error)
