"""Native uploads, however their body is cut, and whatever it says."""

from hypothesis import given
from hypothesis import strategies as some

from qwenbox.dialects.base import WireRequest
from qwenbox.dialects.dashscope import files
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.job import NewFile, Purpose

BOUNDARY = b"cut-here"


def body(datas: list[bytes], descriptions: list[bytes]) -> bytes:
    parts = [b'name="descriptions"\r\n\r\n' + text for text in descriptions]
    parts += [b'name="files"; filename="/tmp/%d.txt"\r\n\r\n' % number + data for number, data in enumerate(datas)]
    begun = b"".join(b"--" + BOUNDARY + b"\r\nContent-Disposition: form-data; " + part + b"\r\n" for part in parts)
    return begun + b"--" + BOUNDARY + b"--\r\n"


def reader() -> files.Upload:
    kind = f"multipart/form-data; boundary={BOUNDARY.decode()}"
    return files.upload(WireRequest(id="1", method="POST", path="/api/v1/files", received_at=0, headers={"content-type": kind}))


@given(
    datas=some.lists(some.binary(max_size=60), min_size=1, max_size=10),
    descriptions=some.lists(some.sampled_from([b"a", b"", "第".encode()]), max_size=4),
    cuts=some.lists(some.integers(1, 40), min_size=1),
)
def test_files_are_the_same_however_the_body_is_cut(datas: list[bytes], descriptions: list[bytes], cuts: list[int]) -> None:
    left, upload, number = body(datas, descriptions), reader(), 0
    heard: dict[int, bytes] = {}
    while left:
        size = cuts[number % len(cuts)]
        for place, data in upload.pieces(left[:size]):
            assert place in heard or (place == len(heard) and data == b"")
            heard[place] = heard.get(place, b"") + data
        left, number = left[size:], number + 1

    said = [text.decode() for text in descriptions] + [""] * 10
    assert datas == list(heard.values())
    assert upload.end() == tuple(NewFile(purpose=Purpose.FINE_TUNE, filename=f"{at}.txt", description=said[at]) for at in range(len(datas)))


@given(noise=some.binary(max_size=400), at=some.integers(0, 200))
def test_any_bytes_are_a_form_or_refused(noise: bytes, at: int) -> None:
    valid = body([b"x"], [b"y"])
    for sent in (noise, valid[:at] + noise + valid[at:]):
        upload = reader()
        try:
            upload.pieces(sent)
            upload.end()
        except ApiError as error:
            assert error.kind is ErrorKind.INVALID_REQUEST
