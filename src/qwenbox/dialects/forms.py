"""This is where a form with a file (multipart/form-data) is taken apart as it comes, for every dialect."""

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from qwenbox.terms.errors import ApiError, ErrorKind

# Of a form field that is not the file, and of a part's header.
FIELD_BYTES = 4096
_MOST_FIELDS = 16
_MOST_BOUNDARY = 256


class Form:
    """A machine that holds no more of the body than one piece of it, however it is cut.

    fields: what stood before the file or after it, by name, up to 16; leading: before it, however the body was cut.
    filename: what the client calls the file, None until it begins. The file is the part named `file`.
    """

    def __init__(self, boundary: bytes) -> None:
        self.filename: str | None = None
        self.leading: dict[str, str] = {}
        self._file = bytearray()
        self._fields: dict[str, bytearray] = {}
        self._header = bytearray()
        self._value = bytearray()
        # Where the part's bytes go: the file, a field, or nowhere.
        self._is_file = False
        self._target: bytearray | None = None
        self._is_over = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_part_data": self._data,
                "on_header_field": self._name,
                "on_header_value": self._worth,
                "on_header_end": self._headed,
                "on_end": self._end,
            },
        )

    @property
    def fields(self) -> dict[str, str]:
        return {name: bytes(value).decode("utf-8", "replace") for name, value in self._fields.items()}

    def feed(self, data: bytes) -> bytes:
        """The bytes of the file that this piece of the body held. Raises ApiError(INVALID_REQUEST)."""
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise _wrong("The body is not well-formed multipart/form-data.") from error
        found, self._file = bytes(self._file), bytearray()
        return found

    def end(self) -> None:
        """The body is over. Raises ApiError(INVALID_REQUEST) if the form is not, or holds no file."""
        if not self._is_over:
            raise _wrong("The multipart body ends before its last boundary.")
        if self.filename is None:
            raise _wrong("'file' is a required property, sent as a file of multipart/form-data", "file")

    def _begin(self) -> None:
        self._target, self._is_file = None, False
        self._header.clear()
        self._value.clear()

    def _name(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]
        self._check_head()

    def _worth(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        self._check_head()

    def _check_head(self) -> None:
        if len(self._header) + len(self._value) > FIELD_BYTES:
            raise _wrong(f"A header of a part may have {FIELD_BYTES} bytes.")

    def _headed(self) -> None:
        if bytes(self._header).lower() == b"content-disposition":
            _, options = parse_options_header(bytes(self._value))
            name = options.get(b"name", b"").decode("utf-8", "replace")
            if name == "file":
                if self.filename is not None:
                    raise _wrong("One file at a time: the form has two fields named 'file'.", "file")
                self.filename = options.get(b"filename", b"file").decode("utf-8", "replace")
                self.leading = self.fields
                self._is_file = True
            elif len(self._fields) < _MOST_FIELDS:
                self._target = self._fields.setdefault(name, bytearray())
        self._header.clear()
        self._value.clear()

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self._file += data[start:end]
        elif self._target is not None:
            self._target += data[start:end]
            if len(self._target) > FIELD_BYTES:
                raise _wrong(f"A form field beside 'file' may have {FIELD_BYTES} bytes.")

    def _end(self) -> None:
        self._is_over = True


def boundary(content_type: str) -> bytes | None:
    """What separates the parts of a form; None for a body that is none."""
    kind, options = parse_options_header(content_type.encode("latin-1"))
    found = options.get(b"boundary", b"")
    return found if kind == b"multipart/form-data" and found and len(found) <= _MOST_BOUNDARY else None


def _wrong(text: str, param: str | None = None) -> ApiError:
    return ApiError(ErrorKind.INVALID_REQUEST, text, param=param)
