"""Who gets into the console and who does not, without a browser: a real box, its real console, a program that keeps to no rule."""

import os
import re
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from boxes import KEY, Box, serve
from support.console_http import Person, by_link, console_address, ended, is_alive, joined, processes, raw_status, until
from support.consoles import admin_key, login_link
from support.ports import free_port

# Something listens there, as an engine of the box's; nobody may learn of it.
ENGINE_TOML = """
[engine.elsewhere]
kind = "openai_server"
flavour = "vllm"
address = "http://127.0.0.1:{port}/v1"
model = "hidden-upstream-model"

[[model]]
name = "qwen-plus"
deployments = ["elsewhere"]
"""
PASSWORD = "correct horse battery"


def environment(**more: str) -> dict[str, str]:
    return {"QWENBOX_CONSOLE_PORT": str(free_port()), **more}


@pytest.fixture(scope="module")
def engine_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        yield listener.getsockname()[1]


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory, engine_port: int) -> Iterator[Box]:
    home = tmp_path_factory.mktemp("home")
    with serve(home, toml=ENGINE_TOML.format(port=engine_port), environment=environment()) as running:
        yield running


@pytest.fixture(scope="module")
def address(box: Box) -> str:
    return console_address(box)


@pytest.fixture
def stranger(address: str) -> Person:
    return Person(address)


@pytest.fixture
def owner(box: Box) -> Person:
    return by_link(box)


def admin(box: Box, method: str, path: str, body: object = None) -> httpx.Response:
    headers = {"authorization": f"Bearer {admin_key(box)}"}
    return httpx.request(method, f"{box.base_url}/admin/v1{path}", headers=headers, json=body, timeout=60)


@pytest.fixture(scope="module")
def ann(box: Box) -> str:
    """The name of an administrator whose password is PASSWORD."""
    assert 201 == admin(box, "POST", "/accounts", {"name": "ann", "role": "admin"}).status_code
    assert 204 == admin(box, "PUT", "/accounts/ann/password", {"password": PASSWORD}).status_code
    return "ann"


def paths_in(page: str) -> set[str]:
    """What a page refers to on its own host."""
    return {path for path in re.findall(r"[\"'(](/[A-Za-z0-9_./-]+)", page) if not path.startswith("//")}


@pytest.fixture
def rooms(owner: Person) -> list[str]:
    """Paths of all pages, from the navigation, and those that are not in it."""
    page = owner.get("/keys").text
    return sorted({*re.findall(r"\\?\"href\\?\":\s*\\?\"(/[a-z-]*)\\?\"", page), "/", "/keys", "/password"})


def test_nothing_is_served_without_a_session(owner: Person, stranger: Person, rooms: list[str]) -> None:
    page = owner.get("/keys").text
    asked = {*rooms, *paths_in(page), "/docs", "/openapi.json", "/assets/", "/_nicegui/auto/static/", "/nothing"}
    assert 10 < len(asked)
    for path in sorted(asked - {"/login", "/preferences"}):
        for method in ("GET", "HEAD"):
            reply = stranger.http.request(method, path)
            assert (303, "/login", b"") == (reply.status_code, reply.headers["location"], reply.content), path
            assert "no-store" == reply.headers["cache-control"]
    upload = "/_nicegui/client/11111111-1111-1111-1111-111111111111/upload/1"
    others = [(method, "/keys") for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE")]
    for method, path in [("POST", upload), *others]:
        reply = stranger.http.request(method, path, headers={"origin": stranger.address})
        assert (303, "/login") == (reply.status_code, reply.headers.get("location")), (method, path)
    assert not stranger.http.cookies


def test_the_web_socket_is_closed_without_a_session(owner: Person, stranger: Person) -> None:
    assert (403, 101) == (stranger.handshake_status(), owner.handshake_status())
    polling = "/_nicegui_ws/socket.io/?EIO=4&transport=polling"
    assert (303, 200) == (stranger.get(polling).status_code, owner.get(polling).status_code)
    guessed = Person(stranger.address, httpx.Cookies(dict.fromkeys(owner.http.cookies, "A" * 43)))
    assert (False, 403) == (guessed.is_in(), guessed.handshake_status())


@pytest.mark.parametrize("origin", [None, "null", "http://evil.example", "http://127.0.0.1", "https://127.0.0.1.evil.example"])
def test_a_foreign_page_can_do_nothing_in_somebodys_name(box: Box, owner: Person, origin: str | None) -> None:
    refused = [
        owner.post("/logout", origin=origin),
        owner.post("/login", {"account": "ann", "password": PASSWORD}, origin=origin),
        owner.post("/_nicegui/client/x/upload/1", origin=origin),
        owner.post("/_nicegui_ws/socket.io/?EIO=4&transport=polling&sid=x", origin=origin),
    ]
    assert [403] * 4 == [reply.status_code for reply in refused]
    assert not [reply for reply in refused if "set-cookie" in reply.headers]
    assert owner.is_in()
    assert 403 == owner.handshake_status(origin)


ORIGINS = ("http://[", "http://[::1", "//", "\xff", "http://{host}@evil.example", "http://evil@{host}", "{host}", "javascript:{host}", "")
HOSTS = ("", "[", "[::1", "a b", "\xff", "{host}@x", "[::1]:99999", "127.0.0.1:no", "evil.example")
COOKIES = (
    "=", "a=b=c;;;", "\xff=1", "{name}=\xff\xfe", "{name}=" + "A" * 5_000, '"""', "{name}=\x22\\303\x22", "qwenbox_language=\x7f; {cookie}",
)  # fmt: skip
PATHS = (
    "/link?token=%ff%fe", "/link?token=" + "a" * 300, "/link?token=%00", "/link",
    "/preferences?back=//evil.example", "/preferences?back=/%0d%0aSet-Cookie:x=y", "/preferences?back=/%5cevil.example",
    "/preferences?language=%00&theme=%ff", "//", "/%00", "/%ff", "/..%2f..%2fetc/passwd", "/assets/x/..%2f..%2f__init__.py",
    "/_nicegui/auto/static/%2e%2e/%2e%2e", "/_nicegui/client/x/upload/9", "/_nicegui_ws/socket.io/?EIO=4&transport=polling&sid=x",
    "/_nicegui_ws/socket.io/?EIO=9&transport=x",
)  # fmt: skip
FORMS = (
    b"\xff\xfe", b"account=" + b"a" * 300, b"account=%00&password=%00", b"account=%ff&password=%ed%a0%80", b"a" * 20_000,
    b"account=a&password=" + b"b" * 2_000,
)  # fmt: skip


def test_nothing_that_is_sent_makes_the_console_fail(owner: Person) -> None:
    host, name = urlsplit(owner.address).netloc, next(iter(owner.http.cookies))
    own = {"Host": host, "Cookie": owner.cookie, "Origin": owner.address}
    filled = {"host": host, "name": name, "cookie": owner.cookie}
    asked = [("POST", path, {**own, "Origin": one.format_map(filled)}, b"") for one in ORIGINS for path in ("/login", "/keys")]
    asked += [("GET", path, {**own, "Host": one.format_map(filled)}, b"") for one in HOSTS for path in ("/login", "/keys", "/playground")]
    asked += [("GET", "/keys", {**own, "Cookie": one.format_map(filled)}, b"") for one in COOKIES]
    asked += [("GET", path, own, b"") for path in PATHS]
    asked += [("POST", "/login", own, form) for form in FORMS]
    failed = [one for one in asked if raw_status(owner.address, *one) >= 500]
    assert [] == failed
    for path in PATHS:
        if path.startswith("/preferences"):
            assert "/" == owner.get(path).headers["location"]
    assert owner.is_in()


def test_the_box_itself_is_no_origin_of_the_console(box: Box, owner: Person) -> None:
    """Pages of another port on this machine are foreign, whatever a browser takes for the same site."""
    assert 403 == owner.post("/logout", origin=box.base_url).status_code == owner.handshake_status(box.base_url)


@pytest.mark.parametrize("ending", ["logged out here", "ended at the box"])
def test_an_open_page_goes_dead_when_its_session_ends(box: Box, ending: str) -> None:
    person = by_link(box)
    page = person.get("/keys").text
    with person.socket() as opened:
        joined(opened, page)
        assert not ended(opened, within_s=0.5)
        if ending == "logged out here":
            assert 303 == person.post("/logout").status_code
            person = Person(person.address)
        else:
            token = next(iter(person.http.cookies.values()))
            assert 204 == admin(box, "POST", "/console/sessions/end", {"token": token}).status_code
        assert ended(opened, within_s=30)
    assert not person.is_in()
    with pytest.raises(InvalidStatus), person.socket():
        pass


def test_a_session_ends_when_the_password_is_changed_elsewhere(box: Box, address: str) -> None:
    admin(box, "POST", "/accounts", {"name": "bob", "role": "admin"})
    admin(box, "PUT", "/accounts/bob/password", {"password": PASSWORD})
    bob = Person(address)
    assert 303 == bob.post("/login", {"account": "bob", "password": PASSWORD}).status_code
    assert bob.is_in()
    admin(box, "PUT", "/accounts/bob/password", {"password": PASSWORD + "!"})
    until(lambda: not bob.is_in())


def test_a_link_lets_one_of_many_in(box: Box, address: str) -> None:
    token = login_link(box).partition("token=")[2]
    people = [Person(address) for _ in range(20)]
    together = threading.Barrier(len(people))
    statuses: list[int] = []

    def come(person: Person) -> None:
        together.wait(30)
        statuses.append(person.get(f"/link?token={token}").status_code)

    threads = [threading.Thread(target=come, args=(person,)) for person in people]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    inside = [person for person in people if person.http.cookies]
    assert (1, 1) == (len(inside), statuses.count(303))
    assert {303, 401, 429} >= set(statuses)
    assert inside[0].is_in()


def test_the_cookie_is_kept_from_scripts_other_sites_and_plain_http(box: Box, address: str) -> None:
    tokens = [login_link(box).partition("token=")[2] for _ in range(2)]
    plain = Person(address).get(f"/link?token={tokens[0]}").headers["set-cookie"]
    behind_tls = Person(address).get(f"/link?token={tokens[1]}", **{"x-forwarded-proto": "https"}).headers["set-cookie"]
    for line in (plain, behind_tls):
        assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(line.split("; "))
    assert (False, True) == ("Secure" in plain, "Secure" in behind_tls)
    assert "Domain" not in plain


def test_guessing_passwords_is_slowed_down_and_shuts_out_nobody_who_has_a_link(box: Box, ann: str) -> None:
    # In a console and a box of their own address: a guess counts against all who come from there.
    with serve(box.home / "guessed", environment=environment()) as other:
        address = console_address(other)
        assert 201 == admin(other, "POST", "/accounts", {"name": "ann", "role": "admin"}).status_code
        assert 204 == admin(other, "PUT", "/accounts/ann/password", {"password": PASSWORD}).status_code
        guesser = Person(address)
        replies = [guesser.post("/login", {"account": ann, "password": f"guess {number}"}) for number in range(7)]
        assert [401] * 5 + [429] * 2 == [reply.status_code for reply in replies]
        assert 0 < int(replies[-1].headers["retry-after"]) <= 30
        assert 429 == guesser.post("/login", {"account": ann, "password": PASSWORD}).status_code
        assert not guesser.http.cookies
        assert by_link(other).is_in()


def test_pages_tell_nobody_where_engines_are_nor_any_credential(box: Box, owner: Person, rooms: list[str], engine_port: int) -> None:
    hidden = [admin_key(box), KEY, f"127.0.0.1:{engine_port}", f"localhost:{engine_port}", next(iter(owner.http.cookies.values()))]
    assert 2 <= len(rooms)
    for path in rooms:
        if owner.get(path).status_code != 200:
            continue
        seen = owner.seen(path)
        assert "qwenbox" in seen
        assert [] == [secret for secret in hidden if secret in seen], path
    for path in sorted(paths_in(owner.get("/keys").text)):
        body = owner.get(path).content
        assert [] == [secret for secret in hidden if secret.encode() in body], path


def test_answers_carry_the_headers_that_keep_a_browser_here(owner: Person, stranger: Person) -> None:
    for reply in (
        owner.get("/keys"),
        stranger.get("/login"),
        stranger.get("/keys"),
        stranger.post("/logout", origin="http://evil.example"),
    ):
        policy = reply.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert not re.search(r"https?:|\*", policy)
        assert ("nosniff", "same-origin") == (reply.headers["x-content-type-options"], reply.headers["referrer-policy"])


def test_a_console_that_is_killed_comes_back_with_the_next_visit_and_everybody_is_still_in(tmp_path: Path) -> None:
    settings = environment(QWENBOX_PORT=str(free_port()))
    with serve(tmp_path, environment=settings, port=int(settings["QWENBOX_PORT"])) as box:
        person = by_link(box)
        (pid,) = processes(box)
        os.kill(pid, signal.SIGKILL)
        until(lambda: not is_alive(pid) or pid not in processes(box))
        models = httpx.get(f"{box.compatible}/models", headers={"authorization": f"Bearer {KEY}"})
        assert 200 == models.status_code
        assert person.address == console_address(box)
        assert person.is_in()
        (successor,) = processes(box)
        assert pid != successor
    assert not is_alive(successor)
    # A restart of the box ends nobody's session either, but unused links of before are over.
    unused = re.search(r"console\?token=(\S+)", box.log)
    assert unused
    with serve(tmp_path, environment=settings, port=int(settings["QWENBOX_PORT"])) as box:
        assert person.address == console_address(box)
        assert person.is_in()
        assert 401 == Person(person.address).get(f"/link?token={unused[1]}").status_code
        # It never outlives its box, however that ends.
        (last,) = processes(box)
        box.process.kill()
        until(lambda: not is_alive(last))


def test_several_workers_share_one_console(tmp_path: Path) -> None:
    toml = "[limits]\napproximate = true\n"
    with serve(tmp_path, toml=toml, environment=environment(QWENBOX_WORKERS="2")) as box:
        places: list[str] = []
        visitors = [threading.Thread(target=lambda: places.append(console_address(box))) for _ in range(8)]
        for visitor in visitors:
            visitor.start()
        for visitor in visitors:
            visitor.join(90)
        assert (8, 1, 1) == (len(places), len(set(places)), len(processes(box)))
        person = by_link(box)
        # Every request of it may go to either worker.
        for _ in range(6):
            assert person.is_in()
            assert Person(person.address).get("/link?token=wrong").status_code in (401, 429)
