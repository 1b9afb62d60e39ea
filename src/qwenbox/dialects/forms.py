"""This is where a form with a file (multipart/form-data) is taken apart as it comes, for every dialect."""

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from qwenbox.terms.errors import ApiError, ErrorKind

# Of a form field that is not the file, and of a part's header.
FIELD_BYTES = 4096
_MOST_FIELDS = 16
_MOST_BOUNDARY = 256
_LABEL_CHARACTERS = 255


class Form:
    """A machine that holds no more of the body than one piece of it, however it is cut.

    name: of the parts that are files; most_files: of those. filenames: what the client calls them, of those that have begun.
    fields: what stood before the files or after them, by name, up to 16; leading: before the first, however the body was cut.
    """

    def __init__(self, boundary: bytes, name: str = "file", most_files: int = 1) -> None:
        self.filenames: list[str] = []
        self.leading: dict[str, str] = {}
        self._name_of_files = name
        self._most_files = most_files
        self._pieces: list[tuple[int, bytes]] = []
        self._fields: list[tuple[str, bytearray]] = []
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
        return {name: "".join(self.values(name)) for name, _ in self._fields}

    @property
    def filename(self) -> str | None:
        """Of the first file, None until it begins."""
        return self.filenames[0] if self.filenames else None

    def values(self, name: str) -> list[str]:
        """Of all fields of this name, in order."""
        return [bytes(value).decode("utf-8", "replace") for known, value in self._fields if known == name]

    def feed(self, data: bytes) -> bytes:
        """The bytes of the files that this piece of the body held. Raises ApiError(INVALID_REQUEST)."""
        return b"".join(piece for _, piece in self.pieces(data))

    def pieces(self, data: bytes) -> list[tuple[int, bytes]]:
        """As `feed`, with the number of the file, from 0; a file begins with a piece of no bytes."""
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise _wrong("The body is not well-formed multipart/form-data.") from error
        found, self._pieces = self._pieces, []
        return found

    def end(self) -> None:
        """The body is over. Raises ApiError(INVALID_REQUEST) if the form is not, or holds no file."""
        if not self._is_over:
            raise _wrong("The multipart body ends before its last boundary.")
        if not self.filenames:
            name = self._name_of_files
            raise _wrong(f"'{name}' is a required property, sent as a file of multipart/form-data", name)

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
            if name == self._name_of_files:
                self._begin_file(options.get(b"filename", b"file").decode("utf-8", "replace"))
            elif len(self._fields) < _MOST_FIELDS:
                self._target = bytearray()
                self._fields.append((name, self._target))
        self._header.clear()
        self._value.clear()

    def _begin_file(self, filename: str) -> None:
        if len(self.filenames) == self._most_files:
            name = self._name_of_files
            raise _wrong(f"The form has more than {self._most_files} file{'s' * (self._most_files > 1)} in fields named '{name}'.", name)
        if not self.filenames:
            self.leading = self.fields
        self._pieces.append((len(self.filenames), b""))
        self.filenames.append(filename)
        self._is_file = True

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self._pieces.append((len(self.filenames) - 1, data[start:end]))
        elif self._target is not None:
            self._target += data[start:end]
            if len(self._target) > FIELD_BYTES:
                raise _wrong(f"A form field beside '{self._name_of_files}' may have {FIELD_BYTES} bytes.")

    def _end(self) -> None:
        self._is_over = True


def label(filename: str) -> str:
    """What its owner calls a file: the last part of whatever path came, without what no database or terminal should see."""
    last = filename.replace("\\", "/").rpartition("/")[2]
    return "".join(letter for letter in last if letter.isprintable())[:_LABEL_CHARACTERS] or "file"


def boundary(content_type: str) -> bytes | None:
    """What separates the parts of a form; None for a body that is none."""
    kind, options = parse_options_header(content_type.encode("latin-1"))
    found = options.get(b"boundary", b"")
    return found if kind == b"multipart/form-data" and found and len(found) <= _MOST_BOUNDARY else None


def _wrong(text: str, param: str | None = None) -> ApiError:
    return ApiError(ErrorKind.INVALID_REQUEST, text, param=param)
