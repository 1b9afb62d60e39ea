"""Exchanges over real loopback TCP with a peer that plays scripts."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import anyio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from peers import END, HEAD, Peer, Script, frame, peer
from qwenbox.remote import MAX_ANSWER_BYTES, Remote, RemoteRequest, Source, Timeouts
from qwenbox.terms.errors import ApiError, ErrorKind

# Long for a busy machine; a connection that is kept idles for 4 s.
# At once, but for a busy machine; nothing of these tests ends by itself before.
SOON_S = 30.0

QUICK = Timeouts(connect_s=1.0, first_byte_s=0.2, between_bytes_s=0.2)


def ask(url: str, timeouts: Timeouts = Timeouts(), body: bytes = b"{}") -> RemoteRequest:  # noqa: B008 (frozen)
    return RemoteRequest(method="POST", url=url, body=body, headers={"Authorization": "Bearer sk-hidden"}, timeouts=timeouts)


async def two_chunks(_: Peer, writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + frame(b"one"))
    await asyncio.sleep(0.05)
    writer.write(frame(b"two") + END)


async def one_chunk_then_nothing(_: Peer, writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + frame(b"one"))
    await asyncio.sleep(60)


async def nothing(_: Peer, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": getattr(request, "param", True)}


on_both_loops = pytest.mark.parametrize("anyio_backend", [True, False], ids=["uvloop", "asyncio"], indirect=True)


@pytest.fixture
async def remote() -> AsyncIterator[Remote]:
    async with Remote() as it:
        yield it


async def failure(remote: Remote, request: RemoteRequest) -> ApiError:
    with pytest.raises(ApiError) as caught:
        async with remote.stream(request) as answer:
            await answer.read()
    assert "sk-hidden" not in str(caught.value)
    assert "127.0.0.1" not in str(caught.value)
    return caught.value


@on_both_loops
async def test_stream_hands_over_each_chunk_when_it_arrives(remote: Remote) -> None:
    async with peer(two_chunks) as it, remote.stream(ask(it.url, body=b'{"a":1}')) as answer:
        started = time.monotonic()
        chunks = [(chunk, time.monotonic() - started) async for chunk in answer]
        assert (answer.status, answer.headers["content-type"], answer.headers["x-mixed"]) == (200, "text/event-stream", "Yes")
    assert [chunk for chunk, _ in chunks] == [b"one", b"two"]
    assert chunks[0][1] < 0.04 < chunks[1][1]
    head, body = it.heard[0]
    assert body == b'{"a":1}'
    assert b"authorization: bearer sk-hidden" in head.lower()
    assert b"accept-encoding: identity" in head.lower()


@on_both_loops
async def test_stream_keeps_one_connection_when_answers_are_read_to_the_end(remote: Remote) -> None:
    async with peer(two_chunks) as it:
        for _ in range(3):
            assert (await remote.call(ask(it.url))).body == b"onetwo"
    assert (len(it.heard), it.connections) == (3, 1)


@on_both_loops
async def test_leaving_early_hangs_up_at_once(remote: Remote) -> None:
    async with peer(one_chunk_then_nothing) as it:
        async with remote.stream(ask(it.url + "/hang")) as answer:
            assert await anext(aiter(answer)) == b"one"
        with anyio.fail_after(SOON_S):
            await it.hung_up.wait()


@pytest.mark.parametrize("script", [one_chunk_then_nothing, nothing])
async def test_cancelling_hangs_up_at_once(remote: Remote, script: Script) -> None:
    async with peer(script) as it:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(remote.call, ask(it.url + "/hang"))
            with anyio.fail_after(SOON_S):
                while not it.heard:  # noqa: ASYNC110 (the peer's list tells nobody)
                    await anyio.sleep(0.01)
            assert not it.hung_up.is_set()
            tasks.cancel_scope.cancel()
        with anyio.fail_after(SOON_S):
            await it.hung_up.wait()


async def test_stream_names_the_timeout_when_no_first_byte_comes(remote: Remote) -> None:
    async with peer(nothing) as it:
        error = await failure(remote, ask(it.url + "/hang", QUICK))
        assert (error.kind, "first_byte_s" in error.message) == (ErrorKind.TIMEOUT, True)
        with anyio.fail_after(SOON_S):
            await it.hung_up.wait()


async def test_stream_names_the_timeout_when_the_answer_stalls(remote: Remote) -> None:
    async with peer(one_chunk_then_nothing) as it:
        error = await failure(remote, ask(it.url + "/hang", QUICK))
        assert (error.kind, "between_bytes_s" in error.message) == (ErrorKind.TIMEOUT, True)
        with anyio.fail_after(SOON_S):
            await it.hung_up.wait()


async def test_a_silence_counts_from_the_last_byte_though_the_first_may_take_longer(remote: Remote) -> None:
    async with peer(one_chunk_then_nothing) as it:
        started = time.monotonic()
        error = await failure(remote, ask(it.url, Timeouts(first_byte_s=30.0, between_bytes_s=0.2)))
        assert error.kind == ErrorKind.TIMEOUT
        assert 0.2 <= time.monotonic() - started < 15.0


async def test_a_slow_consumer_is_not_a_silent_peer(remote: Remote) -> None:
    async with peer(two_chunks) as it, remote.stream(ask(it.url, Timeouts(first_byte_s=30.0, between_bytes_s=0.6))) as answer:
        chunks: list[bytes] = []
        async for chunk in answer:
            chunks.append(chunk)
            await anyio.sleep(0.7)
    assert chunks == [b"one", b"two"]


async def test_the_callers_own_deadline_is_not_taken_for_ours(remote: Remote) -> None:
    async with peer(nothing) as it:
        with pytest.raises(TimeoutError):
            with anyio.fail_after(0.1):
                await remote.call(ask(it.url, Timeouts(first_byte_s=0.6)))
        await anyio.sleep(0.6)  # our deadline would have passed: the task must not be cancelled by a timer left behind


async def test_stream_says_unreachable_when_nobody_listens(remote: Remote) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        error = await failure(remote, ask(f"http://127.0.0.1:{taken.getsockname()[1]}"))
    assert (error.kind, error.retry_after_s) == (ErrorKind.OVERLOADED, 1.0)


async def test_stream_says_unreachable_when_the_name_has_no_address(remote: Remote) -> None:
    assert (await failure(remote, ask("http://nobody.invalid/v1"))).kind == ErrorKind.OVERLOADED


async def test_stream_names_the_timeout_when_no_connection_comes_about(remote: Remote) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for client in waiting:  # fills the queue of a listener that never accepts: further SYNs are dropped
            client.setblocking(False)
            client.connect_ex(address)
        error = await failure(remote, ask(f"http://127.0.0.1:{address[1]}", Timeouts(connect_s=0.2)))
        for client in waiting:
            client.close()
    assert (error.kind, "connect_s" in error.message) == (ErrorKind.TIMEOUT, True)


async def test_stream_fails_when_the_peer_hangs_up_before_it_answers(remote: Remote) -> None:
    async def hang_up(_: Peer, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with peer(hang_up) as it:
        assert (await failure(remote, ask(it.url))).kind == ErrorKind.ENGINE_FAILED


async def test_stream_fails_when_the_answer_is_cut(remote: Remote) -> None:
    async def cut(_: Peer, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + frame(b"one"))
        await asyncio.sleep(0.05)
        writer.transport.abort()

    async with peer(cut) as it:
        error = await failure(remote, ask(it.url))
        assert (error.kind, "middle" in error.message) == (ErrorKind.ENGINE_FAILED, True)


async def test_stream_fails_when_the_peer_hangs_up_after_half_a_head(remote: Remote) -> None:
    async def half(_: Peer, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD[:20])
        await asyncio.sleep(0.05)
        writer.close()

    async with peer(half) as it:
        assert (await failure(remote, ask(it.url))).kind == ErrorKind.ENGINE_FAILED


async def test_stream_fails_when_the_head_has_no_end(remote: Remote) -> None:
    async def endless(_: Peer, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD[:-2] + b"".join(b"x-%d: %b\r\n" % (n, b"y" * 1000) for n in range(100)))
        await asyncio.sleep(1)

    async with peer(endless) as it:
        assert (await failure(remote, ask(it.url))).kind == ErrorKind.ENGINE_FAILED


async def test_a_second_answer_nobody_asked_for_is_not_heard(remote: Remote) -> None:
    async def twice(it: Peer, writer: asyncio.StreamWriter) -> None:
        writer.write((HEAD + frame(str(it.connections).encode()) + END) * 2)

    async with peer(twice) as it:
        assert [(await remote.call(ask(it.url))).body for _ in range(2)] == [b"1", b"2"]


async def test_a_request_is_asked_again_when_the_kept_connection_is_gone(remote: Remote) -> None:
    async def once(it: Peer, writer: asyncio.StreamWriter) -> None:
        if it.connections == 1 and len(it.heard) == 2:
            writer.transport.abort()
        else:
            writer.write(HEAD + frame(b"ok") + END)

    async with peer(once) as it:
        assert [(await remote.call(ask(it.url))).body for _ in range(2)] == [b"ok", b"ok"]
    assert (it.connections, len(it.heard)) == (2, 3)


async def test_a_connection_is_not_kept_when_the_peer_says_close(remote: Remote) -> None:
    async def close(_: Peer, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")

    async with peer(close) as it:
        assert [(await remote.call(ask(it.url))).body for _ in range(2)] == [b"ok", b"ok"]
    assert it.connections == 2


async def test_an_idle_connection_is_closed_after_its_time() -> None:
    async with Remote(pool_idle_s=0.1) as remote, peer(two_chunks) as it:
        await remote.call(ask(it.url + "/idle"))
        with anyio.fail_after(SOON_S):
            await it.hung_up.wait()


async def test_a_body_without_length_ends_with_the_connection(remote: Remote) -> None:
    async def old(_: Peer, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nold")
        await asyncio.sleep(0.05)
        writer.close()

    async with peer(old) as it:
        assert (await remote.call(ask(it.url))).body == b"old"


async def test_interim_answers_are_passed_over(remote: Remote) -> None:
    async def hints(_: Peer, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + HEAD + frame(b"ok") + END)

    async with peer(hints) as it:
        reply = await remote.call(ask(it.url))
    assert (reply.status, reply.body, "link" in reply.headers) == (200, b"ok", False)


@on_both_loops
async def test_a_large_answer_waits_on_the_wire_while_nobody_reads(remote: Remote) -> None:
    sent = 0

    async def large(_: Peer, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 64000000\r\n\r\n")
        for _chunk in range(64):
            writer.write(b"x" * 1_000_000)
            await writer.drain()
            sent += 1

    async with peer(large) as it, remote.stream(ask(it.url)) as answer:
        await anyio.sleep(0.2)
        assert sent < 32
        assert sum([len(chunk) async for chunk in answer]) == 64_000_000


@on_both_loops
async def test_a_body_from_a_source_follows_the_first_bytes(remote: Remote) -> None:
    async with peer(two_chunks) as it:
        for _ in range(2):
            async with remote.stream(sending(it.url, b"x" * 70_000, 10)) as answer:
                assert b"onetwo" == await answer.read()
        assert [b"{}" + b"x" * 700_000] * 2 == [body for _, body in it.heard]
        assert 1 == it.connections


@on_both_loops
async def test_a_source_is_read_no_further_than_the_peer_takes_it() -> None:
    """Neither while the peer reads nothing, nor once it has answered."""
    taken = 0
    may_answer, told, closed = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal taken
        for _ in range(4_000):
            taken += 1
            yield b"x" * 65_536

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await may_answer.wait()
        writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno")
        await told.wait()
        writer.transport.abort()
        closed.set()

    server = await asyncio.start_server(deaf, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    request = RemoteRequest(method="POST", url=url, source=Source(size_bytes=4_000 * 65_536, open=pieces))
    async with server, Remote() as remote, anyio.create_task_group() as group:

        async def answer_once_it_waits() -> None:
            before = -1
            while before != taken:
                before = taken
                await asyncio.sleep(0.1)
            may_answer.set()

        group.start_soon(answer_once_it_waits)
        async with remote.stream(request) as answer:
            assert (413, b"no") == (answer.status, await answer.read())
        told.set()
        await closed.wait()
    assert 0 < taken < 2_000


async def test_a_source_that_nobody_takes_ends_with_its_timeout(remote: Remote) -> None:
    told, closed = asyncio.Event(), asyncio.Event()

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await told.wait()
        writer.transport.abort()
        closed.set()

    async with await asyncio.start_server(deaf, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        assert ErrorKind.TIMEOUT is (await failure(remote, sending(url, b"x" * 65_536, 1_000, QUICK))).kind
        told.set()
        await closed.wait()


def sending(url: str, piece: bytes, count: int, timeouts: Timeouts = Timeouts()) -> RemoteRequest:  # noqa: B008 (frozen)
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(count):
            yield piece

    source = Source(size_bytes=count * len(piece), open=pieces)
    return RemoteRequest(method="POST", url=url, body=b"{}", source=source, timeouts=timeouts)


async def test_an_answer_cannot_be_read_after_its_exchange(remote: Remote) -> None:
    async with peer(two_chunks) as it:
        async with remote.stream(ask(it.url)) as answer:
            pass
        with pytest.raises(RuntimeError):
            await answer.read()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key and self-signed certificate for 127.0.0.1 in one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "peer")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "peer.pem"
    pem = serialization.Encoding.PEM
    path.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()) + made.public_bytes(pem))
    return path


async def test_tls_is_spoken_when_the_certificate_is_trusted(remote: Remote, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with peer(two_chunks, certificate) as it:
        assert [(await remote.call(ask(it.url))).body for _ in range(2)] == [b"onetwo", b"onetwo"]
    assert it.connections == 1


@on_both_loops
async def test_tls_hangs_up_at_once_when_left_early(remote: Remote, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with peer(one_chunk_then_nothing, certificate) as it:
        async with remote.stream(ask(it.url + "/hang")) as answer:
            assert await anext(aiter(answer)) == b"one"
        with anyio.fail_after(SOON_S):
            await it.hung_up.wait()


async def test_stream_fails_when_the_certificate_is_nobodys(remote: Remote, certificate: Path) -> None:
    async with peer(two_chunks, certificate) as it:
        error = await failure(remote, ask(it.url))
    assert (error.kind, "TLS" in error.message) == (ErrorKind.ENGINE_FAILED, True)


@pytest.mark.parametrize("headers", [{"x": "a\r\ny: b"}, {"x\n": "a"}, {"x": "\u4e2d"}])
async def test_stream_fails_when_a_header_cannot_be_sent(remote: Remote, headers: dict[str, str]) -> None:
    async with peer(two_chunks) as it:
        with pytest.raises(ApiError) as caught:
            await remote.call(RemoteRequest(method="GET", url=it.url, headers=headers))
    assert (caught.value.kind, it.connections) == (ErrorKind.ENGINE_FAILED, 0)


async def test_stream_fails_when_the_answer_is_not_http(remote: Remote) -> None:
    async def babble(_: Peer, writer: asyncio.StreamWriter) -> None:
        writer.write(b"I speak no HTTP\r\n\r\n")

    async with peer(babble) as it:
        assert (await failure(remote, ask(it.url))).kind == ErrorKind.ENGINE_FAILED


@pytest.mark.parametrize(
    "url", ["ftp://example.invalid/", "no address", "http://", "http://h/ x", "http://me:sk-hidden@h/", "http://h:port/"]
)
async def test_stream_fails_when_the_address_is_not_one(remote: Remote, url: str) -> None:
    assert (await failure(remote, ask(url))).kind == ErrorKind.ENGINE_FAILED


async def test_redirects_are_not_followed(remote: Remote) -> None:
    async def elsewhere(it: Peer, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 307 Elsewhere\r\nLocation: {it.url}/there\r\nContent-Length: 0\r\n\r\n".encode())

    async with peer(elsewhere) as it:
        assert (await remote.call(ask(it.url))).status == 307
        assert len(it.heard) == 1


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with Remote() as remote, peer(two_chunks) as it:
        assert (await remote.call(ask(it.url))).status == 200


async def test_read_is_cut_off_at_its_limit(remote: Remote) -> None:
    async with peer(two_chunks) as it, remote.stream(ask(it.url)) as answer:
        assert await answer.read(4) == b"onet"


async def test_call_fails_when_the_answer_has_no_end(remote: Remote) -> None:
    async def endless(_: Peer, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD)
        while True:
            writer.write(frame(b"x" * 1_000_000))
            await writer.drain()

    async with peer(endless) as it:
        with pytest.raises(ApiError) as caught:
            await remote.call(ask(it.url))
    assert (caught.value.kind, str(MAX_ANSWER_BYTES) in caught.value.message) == (ErrorKind.ENGINE_FAILED, True)


def test_a_request_hides_its_headers_body_and_query_when_printed() -> None:
    request = RemoteRequest(method="POST", url="http://host/v1?key=sk-hidden", body=b"prompt", headers={"Authorization": "sk-hidden"})
    assert repr(request) == "RemoteRequest(POST http://host/v1, 6 bytes)"
