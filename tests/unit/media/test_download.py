"""A picture is fetched from the address that was vetted, within limits, through redirects that are vetted too."""

import asyncio
import ssl
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peers import Peer, Script, peer
from qwenbox.media import refusals
from qwenbox.media.config import MediaConfig
from qwenbox.media.download import Downloads
from qwenbox.terms.errors import ApiError, ErrorKind
from support.pictures import drawn
from support.tls import certificate_for

pytestmark = pytest.mark.anyio

DATA = drawn()
MIB = 1024 * 1024
HERE = MediaConfig(allow=("127.0.0.1",), item_s=5.0)


def says(*pieces: bytes, is_closed: bool = True) -> Script:
    async def script(it: Peer, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        if is_closed:
            writer.close()
        else:
            await asyncio.sleep(60)

    return script


def ok(data: bytes, *headers: bytes) -> bytes:
    return b"\r\n".join([b"HTTP/1.1 200 OK", *headers, b"content-length: %d" % len(data), b"", data])


def found_at(location: str) -> bytes:
    return f"HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n".encode()


async def refusal(downloads: Downloads, url: str) -> str:
    with pytest.raises(ApiError) as refused:
        await downloads.get(url, MIB)
    return refused.value.message


async def test_picture_comes_with_its_query_and_without_anything_of_ours() -> None:
    async with peer(says(ok(DATA))) as it:
        assert await Downloads(HERE).get(f"{it.url}/a b.png?x=1&y=ü#z".replace(" ", "%20"), MIB) == DATA

    head = it.heard[0][0].decode().lower()
    assert head.startswith("get /a%20b.png?x=1&y=%c3%bc http/1.1\r\n")
    assert f"host: {it.url.removeprefix('http://')}\r\n" in head
    assert not {"authorization", "cookie", "referer", "proxy"} & {line.partition(":")[0] for line in head.splitlines()}


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\n\r\n" + DATA,
        b"HTTP/1.0 200 OK\r\n\r\n" + DATA,
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(DATA), DATA),
        b"HTTP/1.1 100 Continue\r\n\r\n" + ok(DATA),
        ok(DATA, b"content-encoding: identity"),
    ],
)
async def test_picture_comes_however_its_length_is_told(reply: bytes) -> None:
    async with peer(says(reply)) as it:
        assert await Downloads(HERE).get(it.url, MIB) == DATA


async def test_redirects_are_followed_when_each_may_be() -> None:
    async with peer(says(ok(DATA))) as last, peer(says(found_at(f"{last.url}/b.png"))) as middle, peer(says(found_at(middle.url))) as it:
        assert await Downloads(HERE).get(it.url, MIB) == DATA


async def test_redirects_are_given_up_when_they_do_not_end() -> None:
    async with peer(says(found_at("/again"))) as it:
        assert await refusal(Downloads(HERE), it.url) == refusals.FAILED

    assert it.connections == HERE.redirects + 1


@pytest.mark.parametrize(
    "location", ["http://localhost:{port}/", "http://[::1]:{port}/", "http://127.0.0.2:{port}/", "http://169.254.169.254/"]
)
async def test_redirect_is_refused_when_it_leads_inside(location: str) -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return [{"localhost": "127.0.0.3"}.get(host, host)]

    async with peer(says(ok(DATA))) as inside:
        port = inside.url.rpartition(":")[2]
        async with peer(says(found_at(location.replace("{port}", port)))) as it:
            assert await refusal(Downloads(HERE, resolve), it.url) == refusals.NOT_FETCHED

    assert inside.connections == 0


async def test_connection_goes_to_the_vetted_address_when_a_name_answers_differently_the_second_time() -> None:
    answers = [["127.0.0.1"], ["127.0.0.66"]]
    asked: list[str] = []

    async def resolve(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return answers[min(len(asked), 2) - 1]

    async with peer(says(ok(DATA))) as it:
        url = f"http://rebound.example:{it.url.rpartition(':')[2]}/a.png"
        assert await Downloads(HERE, resolve).get(url, MIB) == DATA

    assert asked == ["rebound.example"]
    assert b"host: rebound.example:" in it.heard[0][0]


@pytest.mark.parametrize("addresses", [["127.0.0.1", "10.0.0.1"], ["8.8.8.8", "::1"], [], ["::ffff:127.0.0.1"], ["fe80::1%lo"]])
async def test_name_is_refused_when_one_of_its_addresses_is_inside(addresses: list[str]) -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return addresses

    assert await refusal(Downloads(HERE, resolve), "http://some.example/a.png") == refusals.NOT_FETCHED


async def test_name_is_refused_with_the_same_words_when_nobody_knows_it() -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        raise OSError

    assert await refusal(Downloads(HERE, resolve), "http://unknown.example/a.png") == refusals.NOT_FETCHED


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        ([b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"], refusals.FAILED),
        ([b"HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n"], refusals.FAILED),
        ([b"HTTP/1.1 200 OK\r\ncontent-length: 10737418240\r\n\r\n"], refusals.TOO_LARGE),
        ([b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999\r\n\r\n"], refusals.TOO_LARGE),
        ([b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n"], refusals.FAILED),
        ([b"HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n", DATA[:100]], refusals.FAILED),
        ([b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"ffffffffffffffffff\r\n"], refusals.FAILED),
        ([ok(DATA, b"content-encoding: gzip")], refusals.FAILED),
        ([ok(b"<svg/>" * 10)], refusals.NOT_DECODED),
        ([ok(b"")], refusals.NOT_DECODED),
        ([b"SSH-2.0-OpenSSH_9.9\r\n"], refusals.FAILED),
        ([b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000 + b"\r\n\r\n"], refusals.FAILED),
        ([b"HTTP/1.1 200 OK\r\n\r\n", DATA, *[bytes(65_536)] * 40], refusals.TOO_LARGE),
        ([], refusals.FAILED),
    ],
)
async def test_answer_is_refused_with_the_services_text(pieces: list[bytes], text: str) -> None:
    async with peer(says(*pieces)) as it:
        assert await refusal(Downloads(HERE), it.url) == text


async def test_answer_ends_where_its_length_says_when_more_follows() -> None:
    async with peer(says(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", b"\xff\xd8\xff" + bytes(2 * MIB))) as it:
        assert await Downloads(HERE).get(it.url, MIB) == b"\xff\xd8\xff\0\0"


@pytest.mark.parametrize("beginning", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n" + DATA[:30]])
async def test_answer_is_given_up_when_it_does_not_come(beginning: bytes) -> None:
    async with peer(says(beginning, is_closed=False)) as it:
        text = await refusal(Downloads(MediaConfig(allow=("127.0.0.1",), item_s=0.2)), it.url)

    assert text == refusals.TIMED_OUT


async def test_answer_is_given_up_when_it_comes_drop_by_drop() -> None:
    async def script(it: Peer, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + DATA[:30])
        while True:
            writer.write(b"x")
            await asyncio.sleep(0.01)

    async with peer(script) as it:
        assert await refusal(Downloads(MediaConfig(allow=("127.0.0.1",), item_s=0.3)), it.url) == refusals.TIMED_OUT


async def test_body_without_end_is_refused_when_it_is_too_large() -> None:
    async def script(it: Peer, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(DATA), DATA))
        while True:
            writer.write(b"10000\r\n" + bytes(65_536) + b"\r\n")
            await writer.drain()

    async with peer(script) as it:
        assert await refusal(Downloads(HERE), it.url) == refusals.TOO_LARGE


async def test_nothing_is_fetched_when_the_port_is_closed() -> None:
    async with peer(says(ok(DATA))) as it:
        url = it.url

    assert await refusal(Downloads(HERE), url) == refusals.FAILED


@given(st.binary(max_size=300), st.sampled_from([b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 302 Found\r\nlocation: ", ok(DATA)[:90]]))
@settings(max_examples=60, deadline=None)
def test_answer_is_read_or_refused_whatever_it_is(noise: bytes, beginning: bytes) -> None:
    async def fetch() -> None:
        async with peer(says(beginning + noise)) as it:
            try:
                await Downloads(MediaConfig(allow=("127.0.0.1",), fetches_public=False)).get(it.url, MIB)
            except ApiError as error:
                assert error.kind is ErrorKind.INVALID_REQUEST

    asyncio.run(fetch())


async def test_tls_is_spoken_with_the_name_of_the_url_when_the_address_is_pinned(tmp_path: Path) -> None:
    pem = certificate_for("pictures.example", tmp_path)
    trusted = ssl.create_default_context(cafile=str(pem))

    async def resolve(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.1"]

    async with peer(says(ok(DATA)), pem) as it:
        port = it.url.rpartition(":")[2]
        downloads = Downloads(HERE, resolve, trusted)
        assert await downloads.get(f"https://pictures.example:{port}/", MIB) == DATA
        assert await refusal(downloads, f"https://other.example:{port}/") == refusals.FAILED
        assert await refusal(Downloads(HERE, resolve), f"https://pictures.example:{port}/") == refusals.FAILED
