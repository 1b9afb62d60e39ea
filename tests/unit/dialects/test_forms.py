"""A form with a file is read the same however its bytes are cut, and anything else is refused."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwenbox.dialects.forms import FIELD_BYTES, Form, boundary
from qwenbox.terms.errors import ApiError, ErrorKind

BOUNDARY = b"----b"


def part(head: str, data: bytes) -> bytes:
    return b"--" + BOUNDARY + b"\r\nContent-Disposition: form-data; " + head.encode() + b"\r\n\r\n" + data + b"\r\n"


END = b"--" + BOUNDARY + b"--\r\n"
# With what looks like an end but is none.
FILE = b"\x89PNG\r\n------\r\n--\r\n\0\xff" * 50
FORM = part('name="key"', b"a/b.png") + part('name="file"; filename="c d.png"', FILE) + part('name="late"', b"too") + END


def read(body: bytes, cuts: list[int]) -> tuple[Form, bytes]:
    form = Form(BOUNDARY)
    places = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    data = b"".join(form.feed(body[start:end]) for start, end in itertools.pairwise(places))
    form.end()
    return form, data


@given(st.lists(st.integers(0, len(FORM)), max_size=12))
def test_form_is_read_the_same_however_it_is_cut(cuts: list[int]) -> None:
    form, data = read(FORM, cuts)

    assert (data, form.filename) == (FILE, "c d.png")
    assert (form.leading, form.fields) == ({"key": "a/b.png"}, {"key": "a/b.png", "late": "too"})


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=5))
def test_body_is_read_or_refused_whatever_it_is(noise: bytes, cuts: list[int]) -> None:
    for body in (noise, b"--" + BOUNDARY + b"\r\n" + noise, FORM[: len(noise)] + noise + FORM[len(noise) * 2 :]):
        try:
            read(body, cuts)
        except ApiError as error:
            assert error.kind is ErrorKind.INVALID_REQUEST


@pytest.mark.parametrize(
    "body",
    [
        FORM[:-20],
        part('name="key"', b"a") + END,
        part('name="file"', b"1") + part('name="file"', b"2") + END,
        part('name="key"', bytes(FIELD_BYTES + 1)) + END,
        part(f'name="file"; x="{"a" * FIELD_BYTES}"', b"1") + END,
        b"".join(part(f'name="f{number}"', b"") for number in range(40)) + END,
    ],
)
def test_form_is_refused_when_it_is_cut_off_or_holds_not_one_file(body: bytes) -> None:
    with pytest.raises(ApiError) as refused:
        read(body, [])

    assert refused.value.kind is ErrorKind.INVALID_REQUEST


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("multipart/form-data; boundary=x", b"x"),
        ('Multipart/Form-Data; boundary="x y"', b"x y"),
        ("multipart/mixed; boundary=x", None),
        ("multipart/form-data", None),
        (f"multipart/form-data; boundary={'x' * 300}", None),
        ("", None),
    ],
)
def test_boundary_is_found_when_the_body_is_a_form(content_type: str, expected: bytes | None) -> None:
    assert boundary(content_type) == expected
