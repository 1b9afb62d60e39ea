"""The connection to the shared store, against a real Valkey: order, outages, passwords, TLS."""

import contextlib
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import anyio.abc
import pytest
from anyio.streams.tls import TLSListener

from qwenbox.terms.secret import Secret
from qwenbox.valkey.resp import ReplyError
from qwenbox.valkey.store import Script, Store, StoreConfig, StoreDown, StoreRefused, open_store
from support import valkey

ECHO = Script("return ARGV[1]")
COUNT = Script("return redis.call('INCRBY', KEYS[1], ARGV[1])")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[valkey.Server]:
    with valkey.serve(tmp_path_factory.mktemp("valkey")) as running:
        yield running


@pytest.fixture
async def store(server: valkey.Server) -> AsyncIterator[Store]:
    async with open_store(StoreConfig(url=Secret(server.url)), [ECHO, COUNT]) as opened:
        await opened.call("FLUSHALL")
        yield opened


def unexpected() -> None:
    raise AssertionError("lost")


async def test_script_answers_each_its_own_when_many_ask_at_once(store: Store) -> None:
    answers: dict[int, object] = {}

    async def ask(number: int) -> None:
        answers[number] = await store.call_script(ECHO, [], [b"%d" % number])

    async with anyio.create_task_group() as group:
        for number in range(200):
            group.start_soon(ask, number)
    assert {number: b"%d" % number for number in range(200)} == answers


async def test_posted_script_runs_before_what_is_asked_after_it(store: Store) -> None:
    for _ in range(10):
        store.post_script(COUNT, [b"n"], [b"1"], unexpected)
    assert 10 == await store.call_script(COUNT, [b"n"], [b"0"])


async def test_script_is_sent_again_when_the_store_forgot_it(store: Store) -> None:
    await store.call("SCRIPT", "FLUSH")
    store.post_script(COUNT, [b"n"], [b"2"], unexpected)
    assert 3 == await store.call_script(COUNT, [b"n"], [b"1"]) or 3 == await store.call_script(COUNT, [b"n"], [b"0"])


async def test_error_reaches_who_asked_when_a_script_fails(store: Store) -> None:
    with pytest.raises(ReplyError, match="wrong"):
        await store.call_script(Script("return redis.error_reply('wrong')"), [], [])
    assert b"1" == await store.call_script(ECHO, [], [b"1"])


async def test_posted_script_is_lost_when_it_fails(store: Store) -> None:
    lost: list[int] = []
    store.post_script(Script("return redis.error_reply('wrong')"), [], [], lambda: lost.append(1))
    await store.call("PING")
    assert [1] == lost


async def test_answer_is_dropped_when_who_asked_has_left(store: Store) -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await store.call_script(ECHO, [], [b"left"])
    assert b"here" == await store.call_script(ECHO, [], [b"here"])


async def test_outage_shows_at_once_and_store_returns_when_it_was_killed(tmp_path: Path) -> None:
    with valkey.serve(tmp_path) as server:
        async with open_store(StoreConfig(url=Secret(server.url)), [ECHO]) as store:
            assert store.is_up
            server.kill()
            with anyio.fail_after(60):
                await store.wait_down()
            with pytest.raises(StoreDown):
                await store.call_script(ECHO, [], [b"x"])
            lost: list[int] = []
            store.post_script(ECHO, [], [b"x"], lambda: lost.append(1))
            assert [1] == lost
            server.start()
            with anyio.fail_after(60):
                await store.wait_up()
            assert b"x" == await store.call_script(ECHO, [], [b"x"])
            assert 2 == store.connections


async def test_silent_store_is_gone_when_its_deadline_passes(tmp_path: Path) -> None:
    with valkey.serve(tmp_path) as server:
        async with open_store(StoreConfig(url=Secret(server.url), command_s=1.0, connect_s=1.0), [ECHO]) as store:
            lost: list[int] = []
            with server.frozen():
                store.post_script(ECHO, [], [b"x"], lambda: lost.append(1))
                with pytest.raises(StoreDown):
                    await store.call_script(ECHO, [], [b"x"])
                assert [1] == lost
                assert not store.is_up
            with anyio.fail_after(60):
                await store.wait_up()
            assert b"x" == await store.call_script(ECHO, [], [b"x"])


async def test_store_opens_when_nobody_is_there_yet(tmp_path: Path) -> None:
    with valkey.serve(tmp_path) as server:
        server.kill()
        async with open_store(StoreConfig(url=Secret(server.url))) as store:
            assert not store.is_up
            server.start()
            with anyio.fail_after(60):
                await store.wait_up()


async def test_password_opens_the_store_and_shows_nowhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    with valkey.serve(tmp_path) as server:
        async with open_store(StoreConfig(url=Secret(server.url))) as store:
            await store.call("ACL", "SETUSER", "box", "on", ">p@ss/word", "~*", "+@all")
            await store.call("CONFIG", "SET", "requirepass", "other")
        url = Secret(f"valkey://box:p%40ss%2Fword@127.0.0.1:{server.port}/3")
        async with open_store(StoreConfig(url=url)) as store:
            assert b"db=3 " in await store.call("CLIENT", "INFO")
            texts = [repr(store), repr(StoreConfig(url=url))]
        wrong = Secret(f"valkey://box:wr0ng@127.0.0.1:{server.port}")
        with pytest.raises(StoreRefused) as refusal:
            async with open_store(StoreConfig(url=wrong)):
                pass
        texts += [str(refusal.value), caplog.text]
        assert [] == [text for text in texts if "wr0ng" in text or "p@ss" in text or "p%40ss" in text]
        server.kill()
        with pytest.raises(StoreDown) as outage:
            await Store(StoreConfig(url=wrong)).connect()
        assert "wr0ng" not in str(outage.value)


@pytest.mark.parametrize("url", ["http://x", "redis://h/x", "", "redis://h:99999", "unix:///x?db=y"])
def test_address_is_refused_when_it_makes_no_sense(url: str) -> None:
    with pytest.raises(StoreRefused):
        Store(StoreConfig(url=Secret(url)))


async def test_wire_hangs_up_when_the_other_side_speaks_no_resp() -> None:
    async def answer(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as group:
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        group.start_soon(listener.serve, answer)
        with pytest.raises(StoreDown):
            await Store(StoreConfig(url=Secret(f"redis://127.0.0.1:{port}"))).connect()
        group.cancel_scope.cancel()


async def test_unix_socket_reaches_the_store(server: valkey.Server) -> None:
    async with open_store(StoreConfig(url=Secret(f"unix://{server.socket}?db=1"))) as store:
        assert b"db=1 " in await store.call("CLIENT", "INFO")


def relay_to(port: int):
    async def copy(source: anyio.abc.ByteStream, target: anyio.abc.ByteStream) -> None:
        with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            async for data in source:
                await target.send(data)
            await target.aclose()

    async def relay(client: anyio.abc.ByteStream) -> None:
        async with client, await anyio.connect_tcp("127.0.0.1", port) as server, anyio.create_task_group() as group:
            group.start_soon(copy, client, server)
            group.start_soon(copy, server, client)

    return relay


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key and self-signed certificate for 127.0.0.1 in one PEM file."""
    folder = tmp_path_factory.mktemp("certificate")
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1", *subject]
    words += ["-keyout", str(folder / "key.pem"), "-out", str(folder / "certificate.pem")]
    subprocess.run(words, check=True, capture_output=True)
    both = folder / "both.pem"
    both.write_text((folder / "key.pem").read_text() + (folder / "certificate.pem").read_text())
    return both


@contextlib.asynccontextmanager
async def tls_in_front(port: int, certificate: Path) -> AsyncIterator[int]:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as group:
        group.start_soon(TLSListener(listener, tls, standard_compatible=False).serve, relay_to(port))
        yield listener.extra(anyio.abc.SocketAttribute.local_port)
        group.cancel_scope.cancel()


async def test_tls_reaches_the_store_when_its_authority_is_named(server: valkey.Server, certificate: Path) -> None:
    async with tls_in_front(server.port, certificate) as port:
        config = StoreConfig(url=Secret(f"rediss://127.0.0.1:{port}"), ca=str(certificate))
        async with open_store(config, [ECHO]) as store:
            assert b"x" == await store.call_script(ECHO, [], [b"x"])


async def test_tls_is_refused_when_nobody_vouches_for_the_store(server: valkey.Server, certificate: Path) -> None:
    async with tls_in_front(server.port, certificate) as port:
        with pytest.raises(StoreRefused):
            await Store(StoreConfig(url=Secret(f"valkeys://127.0.0.1:{port}"))).connect()
