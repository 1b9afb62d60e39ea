"""This is where a dialect says what it is: routes, credential, error page, and one parser per verb.

A dialect is pure: bytes in, terms out, bytes back. It does no I/O and knows no engine.
"""

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Generic, Protocol, TypeAlias, TypeVar

import msgspec

from qwenbox.dialects.unserved import Unserved
from qwenbox.terms.caller import Compat
from qwenbox.terms.chat import ChatRequest
from qwenbox.terms.completion import CompletionRequest
from qwenbox.terms.conversation import StoredResponse
from qwenbox.terms.embedding import EmbeddingRequest
from qwenbox.terms.engine import EngineFacts, Health
from qwenbox.terms.errors import ApiError
from qwenbox.terms.events import ChatEvent, Completed
from qwenbox.terms.image import ImageRequest
from qwenbox.terms.job import (
    Batch,
    BatchesPage,
    FilesPage,
    NewBatch,
    NewFile,
    PageAsked,
    StoredFile,
    Task,
    TaskPicture,
    TasksAsked,
    TasksPage,
)
from qwenbox.terms.model import ModelCard, Price
from qwenbox.terms.rerank import RerankRequest
from qwenbox.terms.secret import Secret
from qwenbox.terms.timeline import Timeline
from qwenbox.terms.upload import Grant, Permit


class Verb(StrEnum):
    """What an endpoint does; the server has one endpoint per verb, whatever the dialect."""

    CHAT = "chat"
    COMPLETE = "complete"
    EMBED = "embed"
    RERANK = "rerank"
    MAKE_IMAGE = "make_image"
    CHAT_OR_IMAGE = "chat_or_image"  # the model decides
    GET_TASK = "get_task"
    LIST_TASKS = "list_tasks"
    CANCEL_TASK = "cancel_task"
    COUNT_TOKENS = "count_tokens"
    COUNT_PROMPT = "count_prompt"
    LIST_MODELS = "list_models"
    GET_MODEL = "get_model"
    SHORT_LIVED_KEY = "short_lived_key"
    UPLOAD_FILE = "upload_file"
    GRANT_UPLOAD = "grant_upload"
    LIST_FILES = "list_files"
    GET_FILE = "get_file"
    DELETE_FILE = "delete_file"
    FILE_CONTENT = "file_content"
    CREATE_BATCH = "create_batch"
    LIST_BATCHES = "list_batches"
    GET_BATCH = "get_batch"
    CANCEL_BATCH = "cancel_batch"
    CREATE_RESPONSE = "create_response"
    GET_RESPONSE = "get_response"
    DELETE_RESPONSE = "delete_response"
    RESPONSE_INPUT = "response_input"
    COUNT_RESPONSE = "count_response"


# Their bodies are read piece by piece, by their endpoint.
STREAMED_BODIES = frozenset({Verb.UPLOAD_FILE})


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One path of a dialect. path: below the dialect's prefix, with at most one `{name}`, e.g. "/models/{model}", "/files/{id}/content".

    At its end the parameter takes the rest of the path, slashes too; before more text it is one segment.
    """

    method: str
    path: str
    verb: Verb


class WireRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request as it came, read within the body limit. headers: names in lower case. id: the request id we gave it.

    received_at: seconds since the epoch. timeline: of the exchange, no dialect's business.
    """

    id: str
    method: str
    path: str
    received_at: float
    headers: Mapping[str, str] = {}
    query: Mapping[str, str] = {}
    path_params: Mapping[str, str] = {}
    body: bytes = b""
    timeline: Timeline = msgspec.field(default_factory=Timeline)


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """The start of a response. headers: without content-type, content-length and x-request-id, which the server owns."""

    status: int
    media_type: str
    headers: Mapping[str, str] = {}


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """A whole response: an error page, a models list."""

    head: Head
    body: bytes


class Reply(Protocol):
    """A machine that writes one answer. A whole-JSON reply stays silent until Completed; a stream speaks at once."""

    @property
    def head(self) -> Head:
        """Of the good answer; valid before the first event."""
        ...

    def event(self, event: ChatEvent) -> bytes: ...

    def error(self, error: ApiError) -> bytes:
        """The frame that ends an answer already begun. Before the first byte the server uses `Dialect.error_page`."""
        ...

    def heartbeat(self) -> bytes:
        """Bytes that mean nothing to a client but keep the line open; b"" where the wire has none."""
        ...


T = TypeVar("T")


class Parsed(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """What to do, and how to answer: here they part ways."""

    request: T
    reply: Reply


class StoredTurn(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be kept of an answer. input: what this turn asked, response: the whole answer; bytes only this dialect reads."""

    id: str
    input: bytes
    response: bytes


class RecordingReply(Reply, Protocol):
    """A reply whose answer can be kept."""

    def record(self, event: Completed) -> StoredTurn:
        """Before `event` is given the same Completed, so that what is kept is kept before the end of the answer is seen."""
        ...


class ParsedResponse(Parsed[ChatRequest], frozen=True, kw_only=True):
    """As Parsed, with an answer that can be kept."""

    reply: RecordingReply


class ResponseDraft(Protocol):
    """A request that may go on from a stored response, read as far as it can be without it.

    previous_id: the response it goes on from. wants_storing: None where the caller did not say. is_truncated: the oldest turns may be left
    out where the model's context is too short.
    """

    @property
    def previous_id(self) -> str | None: ...

    @property
    def wants_storing(self) -> bool | None: ...

    @property
    def is_truncated(self) -> bool: ...

    def join(self, turns: tuple[tuple[bytes, bytes], ...], *, is_stored: bool) -> ParsedResponse:
        """With the turns before, (input, response) each, oldest first. Raises ApiError(INVALID_REQUEST)."""
        ...


class ResponsesWire(msgspec.Struct, frozen=True, kw_only=True):
    """How a dialect speaks of responses that are stored."""

    draft: Callable[[WireRequest, Compat], ResponseDraft]
    one: Callable[[WireRequest, StoredResponse], Page]
    deleted: Callable[[str], Page]
    input_page: Callable[[WireRequest, StoredResponse], Page]
    counted: Callable[[int], Page]


class ListedModel(msgspec.Struct, frozen=True, kw_only=True):
    """One row of a models list: the public name, its card, and what really answers (in order of preference).

    price: as the book has it now, None for a model without a price.
    """

    name: str
    card: ModelCard
    created_at: int
    deployments: tuple[tuple[EngineFacts, Health], ...] = ()
    aliases: tuple[str, ...] = ()
    price: Price | None = None


class ModelsPage(msgspec.Struct, frozen=True, kw_only=True):
    """What a models list was asked for. model: only this name. Pages count from 1."""

    model: str | None = None
    page_no: int = 1
    page_size: int | None = None


class UploadReader(Protocol):
    """A machine that takes an upload apart as it comes. Both raise ApiError(INVALID_REQUEST)."""

    def pieces(self, data: bytes) -> list[tuple[int, bytes]]:
        """The bytes of files that this piece of the body held, with the number of the file, from 0, whose first piece has no bytes."""
        ...

    def end(self) -> tuple[NewFile, ...]:
        """The body is over: what it says of each file."""
        ...


class NotKept(msgspec.Struct, frozen=True, kw_only=True):
    """A file that was uploaded, and why it was not kept."""

    filename: str
    error: ApiError


Outcome: TypeAlias = StoredFile | NotKept


class FilesWire(msgspec.Struct, frozen=True, kw_only=True):
    """How a dialect speaks of stored files. uploaded: what became of each, raises ApiError where none was kept.

    The last argument of what makes pages is the request's id.
    """

    upload: Callable[[WireRequest], UploadReader]
    asked: Callable[[WireRequest], PageAsked]
    uploaded: Callable[[tuple[Outcome, ...], str], Page]
    one: Callable[[StoredFile, str], Page]
    page: Callable[[FilesPage, PageAsked, str], Page]
    deleted: Callable[[str, str], Page]
    content_head: Callable[[StoredFile], Head]


class UploadPost(msgspec.Struct, frozen=True, kw_only=True):
    """What a form says before its file. policy, signature: as they were handed out. name: what the file is to be called in the call."""

    policy: str
    signature: str
    name: str


class UploadPostReader(Protocol):
    """A machine that takes the form of an upload apart as it comes. Its methods raise ApiError(INVALID_REQUEST)."""

    def feed(self, data: bytes) -> bytes:
        """The bytes of the file that this piece of the body held."""
        ...

    @property
    def post(self) -> UploadPost | None:
        """None until the file begins."""
        ...

    def end(self) -> None:
        """The body is over."""
        ...


class UploadsWire(msgspec.Struct, frozen=True, kw_only=True):
    """How a dialect speaks of files that are uploaded for a call. asked: the model they are for. policy: what is signed; permit: what a
    signed policy says; raises ApiError(FORBIDDEN)."""

    asked: Callable[[WireRequest], str]
    policy: Callable[[Permit], str]
    permit: Callable[[str], Permit]
    granted: Callable[[Grant, str], Page]
    read: Callable[[WireRequest], UploadPostReader]


class BatchesWire(msgspec.Struct, frozen=True, kw_only=True):
    """How a dialect speaks of batches."""

    new: Callable[[WireRequest], NewBatch]
    asked: Callable[[WireRequest], PageAsked]
    one: Callable[[Batch], Page]
    page: Callable[[BatchesPage], Page]


class ParsedImage(Parsed[ImageRequest], frozen=True, kw_only=True):
    """is_linked: pictures are told by where they can be fetched, else by their bytes."""

    is_linked: bool = True


class TasksWire(msgspec.Struct, frozen=True, kw_only=True):
    """How a dialect speaks of tasks. is_wanted: whether this call is to be one. endpoint: the path by which its end is told.

    one: a task or that there is none, its id as it was asked for, the request's id, and where a picture is fetched.
    only_tasks: what a model that draws in tasks only says to another call.
    """

    is_wanted: Callable[[WireRequest], bool]
    endpoint: Callable[[WireRequest], str]
    submitted: Callable[[Task, str], Page]
    one: Callable[[Task | None, str, str, Callable[[TaskPicture], str]], Page]
    asked: Callable[[WireRequest], TasksAsked]
    page: Callable[[TasksPage, TasksAsked, str], Page]
    cancelled: Callable[[str], Page]
    only_tasks: str


class TokensAsked(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be cut into tokens: a request's texts, without a template around them. model: whose vocabulary."""

    model: str
    texts: tuple[str, ...]


class TokensCut(msgspec.Struct, frozen=True, kw_only=True):
    """ids: of all texts, one after the other. pieces: the text of each, which is half a character where a token is."""

    ids: tuple[int, ...]
    pieces: tuple[str, ...]


ParseChat: TypeAlias = Callable[[WireRequest, Compat], Parsed[ChatRequest]]
ParseCompletion: TypeAlias = Callable[[WireRequest, Compat], Parsed[CompletionRequest]]
ParseEmbedding: TypeAlias = Callable[[WireRequest, Compat], Parsed[EmbeddingRequest]]
ParseRerank: TypeAlias = Callable[[WireRequest, Compat], Parsed[RerankRequest]]
ParseImage: TypeAlias = Callable[[WireRequest, Compat], ParsedImage]


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """One wire language, as a value: what it cannot do is None.

    prefixes: the base URLs' paths, the first one is the official one.
    credential: the key in the request; raises ApiError(UNAUTHENTICATED) with the dialect's words when there is none.
    error_page: every ApiError as a response of this dialect.
    parse_short_lived: for how many seconds a short-lived key is asked for. render_short_lived: the key and when it ends, in seconds since
    the epoch.
    parse_prompt: a chat whose input tokens are to be counted; render_prompt: their number.
    model_of: the model a request names, "" for none. image_families: beginnings of names by which a model draws, where the catalog
    cannot tell.
    parse_*: raise ApiError for what is wrong with the request, naming the field.
    """

    name: str
    prefixes: tuple[str, ...]
    routes: tuple[Route, ...]
    unserved: tuple[Unserved, ...] = ()
    credential: Callable[[WireRequest], str]
    error_page: Callable[[ApiError, str], Page]
    parse_chat: ParseChat | None = None
    parse_completion: ParseCompletion | None = None
    parse_embedding: ParseEmbedding | None = None
    parse_rerank: ParseRerank | None = None
    parse_image: ParseImage | None = None
    parse_tokens: Callable[[WireRequest], TokensAsked] | None = None
    render_tokens: Callable[[TokensCut, str], Page] | None = None
    parse_prompt: Callable[[WireRequest, Compat], ChatRequest] | None = None
    render_prompt: Callable[[int, str], Page] | None = None
    parse_models: Callable[[WireRequest], ModelsPage] | None = None
    render_models: Callable[[tuple[ListedModel, ...], ModelsPage, str], Page] | None = None
    parse_short_lived: Callable[[WireRequest], int] | None = None
    render_short_lived: Callable[[Secret, int], Page] | None = None
    files: FilesWire | None = None
    uploads: UploadsWire | None = None
    batches: BatchesWire | None = None
    responses: ResponsesWire | None = None
    tasks: TasksWire | None = None
    model_of: Callable[[WireRequest], str] | None = None
    image_families: tuple[str, ...] = ()
