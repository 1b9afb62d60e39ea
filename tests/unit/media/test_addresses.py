"""No address inside is fetched from, however it is written."""

import ipaddress
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwenbox.media import refusals
from qwenbox.media.addresses import Target, Vetting, is_public, parse, redirected
from qwenbox.media.config import MediaConfig
from qwenbox.terms.errors import ApiError, ErrorKind
from support.hostile_urls import INSIDE, MALFORMED

PUBLIC = ("http://8.8.8.8/a.png", "https://[2606:4700::1111]/a.png", "http://100.63.255.255/", "http://172.32.0.1/", "http://11.0.0.1/")


@pytest.mark.parametrize("url", MALFORMED)
def test_url_is_refused_when_it_is_no_plain_http_address(url: str) -> None:
    with pytest.raises(ApiError) as refused:
        parse(url.replace("{port}", "80"))

    assert (refused.value.kind, refused.value.message) == (ErrorKind.INVALID_REQUEST, refusals.WRONG_URL)


@pytest.mark.parametrize("url", [url for url in INSIDE if "local" not in url.lower() and "ⓛ" not in url])
def test_literal_address_is_not_public_when_it_is_inside(url: str) -> None:
    host = parse(url.replace("{port}", "80")).host

    assert not is_public(ipaddress.ip_address(host))
    assert not Vetting(MediaConfig()).is_allowed(host, host)


@pytest.mark.parametrize("url", PUBLIC)
def test_literal_address_is_allowed_when_it_is_public(url: str) -> None:
    host = parse(url).host

    assert Vetting(MediaConfig()).is_allowed(host, host)


def test_target_is_what_is_sent() -> None:
    assert parse("https://Bücher.example:8443/Ä b.png?q=ü&a=%20#part".replace(" ", "%20")) == Target(
        url="https://Bücher.example:8443/Ä%20b.png?q=ü&a=%20#part",
        is_tls=True,
        host="xn--bcher-kva.example",
        port=8443,
        path="/%C3%84%20b.png?q=%C3%BC&a=%20",
    )
    assert [parse(url).authority for url in ("http://a.example", "https://a.example:80", "http://[2606:4700::1]:81")] == [
        "a.example",
        "a.example:80",
        "[2606:4700::1]:81",
    ]


@pytest.mark.parametrize(
    ("location", "expected"),
    [("/b", "http://a.example/b"), ("b", "http://a.example/x/b"), ("//b.example/", "http://b.example/"), ("https://c.example", None)],
)
def test_redirect_is_read_from_where_it_came(location: str, expected: str | None) -> None:
    assert redirected(parse("http://a.example/x/y"), location) == parse(expected or location)


@pytest.mark.parametrize("location", ["file:///etc/passwd", "http://[", "gopher://x", "http://a@10.0.0.1/"])
def test_redirect_is_refused_when_it_leads_to_no_address(location: str) -> None:
    with pytest.raises(ApiError):
        redirected(parse("http://a.example/x/y"), location)


def test_private_addresses_are_allowed_when_listed() -> None:
    vetting = Vetting(MediaConfig(allow=("10.1.0.0/16", "127.0.0.1", "fd00::/8", "Files.Corp.")))

    allowed = [("x", "10.1.2.3"), ("x", "127.0.0.1"), ("x", "fd00::1"), ("files.corp", "192.168.0.1"), ("x", "8.8.8.8")]
    refused = [("x", "10.2.0.1"), ("x", "127.0.0.2"), ("x", "::ffff:127.0.0.1"), ("evil.files.corp", "192.168.0.1"), ("x", "no address")]
    assert [vetting.is_allowed(*pair) for pair in allowed] == [True] * len(allowed)
    assert [vetting.is_allowed(*pair) for pair in refused] == [False] * len(refused)


def test_only_what_is_listed_is_allowed_when_public_addresses_are_not() -> None:
    vetting = Vetting(MediaConfig(fetches_public=False, allow=("cdn.example.com",)))

    assert vetting.is_allowed("cdn.example.com", "8.8.8.8")
    assert not vetting.is_allowed("other.example.com", "8.8.8.8")


@pytest.mark.parametrize("entry", ["http://a.example", "10.0.0.0/99", "a.example:80", ""])
def test_list_is_refused_when_an_entry_makes_no_sense(entry: str) -> None:
    with pytest.raises(ValueError, match="allow lists"):
        MediaConfig(allow=(entry,))


@given(st.integers(0, 2**32 - 1))
def test_public_addresses_are_those_python_calls_global(number: int) -> None:
    address = ipaddress.IPv4Address(number)
    # Python has fewer ranges: it knows nothing of relays, some protocols' own addresses and one cloud's host agent.
    assert not is_public(address) or (address.is_global and not address.is_multicast)


@given(st.integers(0, 2**128 - 1))
def test_public_addresses_are_those_python_calls_global_in_version_6(number: int) -> None:
    address = ipaddress.IPv6Address(number)
    assert not is_public(address) or (address.is_global and not address.is_multicast and address.ipv4_mapped is None)


@given(st.text(alphabet=string.printable + "。①ⓛ１\u202e\ud800", max_size=40))
def test_url_is_read_or_refused_whatever_it_is(text: str) -> None:
    for url in (text, f"http://{text}", f"http://a.example/{text}"):
        try:
            target = parse(url)
        except ApiError as error:
            assert error.message == refusals.WRONG_URL
        else:
            assert target.authority.isascii()
            assert target.path.isascii()
            assert not set(" \r\n") & set(target.authority + target.path)
