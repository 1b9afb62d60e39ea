"""This is where work that outlives its request is described: stored files, batches of calls, tasks, and what is asked of them."""

from enum import StrEnum

import msgspec

from qwenbox.terms.errors import ErrorKind


class Purpose(StrEnum):
    """What a file is for. BATCH_OUTPUT: written by a batch, never uploaded."""

    BATCH = "batch"
    FILE_EXTRACT = "file-extract"
    FINE_TUNE = "fine-tune"
    BATCH_OUTPUT = "batch_output"


class NewFile(msgspec.Struct, frozen=True, kw_only=True):
    """What its owner says of a file. filename: a label, never a path."""

    purpose: Purpose
    filename: str
    description: str = ""


class StoredFile(msgspec.Struct, frozen=True, kw_only=True):
    """filename: what its owner calls it; never a path of ours. created_at: seconds since the epoch.

    md5: of its bytes, base64; "" for a file that the box wrote itself, or one older than this field.
    """

    id: str
    account_id: str
    purpose: Purpose
    filename: str
    size_bytes: int
    created_at: float
    description: str = ""
    md5: str = ""


class PageAsked(msgspec.Struct, frozen=True, kw_only=True):
    """Which part of a list, newest first. after: the id of the last one seen. created_*: seconds since the epoch, both ends included.

    purpose, skip, is_counted: files only; skip: how many of the newest ones to leave out, is_counted: how many there are is asked, too.
    name (a part of it), input_file_ids, statuses: batches only; empty is all.
    """

    limit: int
    skip: int = 0
    is_counted: bool = False
    after: str | None = None
    created_after: float | None = None
    created_before: float | None = None
    purpose: str | None = None
    name: str = ""
    input_file_ids: tuple[str, ...] = ()
    statuses: tuple[str, ...] = ()


class FilesPage(msgspec.Struct, frozen=True, kw_only=True):
    """total: on all pages, where that was asked, else 0."""

    files: tuple[StoredFile, ...]
    has_more: bool
    total: int = 0


class BatchStatus(StrEnum):
    """VALIDATING → IN_PROGRESS → FINALIZING → COMPLETED, or one of the other ends."""

    VALIDATING = "validating"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


class BatchFault(msgspec.Struct, frozen=True, kw_only=True):
    """Why a batch's file cannot be run. line: counts from 1, None for the file as a whole."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None


class NewBatch(msgspec.Struct, frozen=True, kw_only=True):
    """What a client asks for. window: as it wrote it; window_s: the same in seconds."""

    input_file_id: str
    endpoint: str
    window: str
    window_s: float
    metadata: dict[str, str] | None = None


class BatchUsage(msgspec.Struct, frozen=True, kw_only=True):
    """What the lines that are done have used and cost so far, as their receipts have it."""

    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    cost_micros: int = 0


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """A batch as it stands. Times are seconds since the epoch, None until they come; expires_at: when its window ends.

    total: 0 until the file is validated. completed, failed: lines that have their result.
    """

    id: str
    account_id: str
    key_id: str
    endpoint: str
    input_file_id: str
    window: str
    window_s: float
    status: BatchStatus
    metadata: dict[str, str] | None = None
    model: str = ""
    faults: tuple[BatchFault, ...] = ()
    output_file_id: str | None = None
    error_file_id: str | None = None
    created_at: float
    in_progress_at: float | None = None
    expires_at: float | None = None
    finalizing_at: float | None = None
    completed_at: float | None = None
    failed_at: float | None = None
    expired_at: float | None = None
    cancelling_at: float | None = None
    cancelled_at: float | None = None
    total: int = 0
    completed: int = 0
    failed: int = 0
    usage: BatchUsage = BatchUsage()
    currency: str = ""


class BatchesPage(msgspec.Struct, frozen=True, kw_only=True):
    batches: tuple[Batch, ...]
    has_more: bool


class TaskState(StrEnum):
    """PENDING → RUNNING → one of three ends. UNKNOWN: never there, somebody else's, or over for longer than tasks are kept."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"
    UNKNOWN = "UNKNOWN"


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """Something a call made that can be fetched for a while. name: in the store of results; expires_at: whole seconds since the epoch."""

    name: str
    expires_at: int


class TaskFault(msgspec.Struct, frozen=True, kw_only=True):
    """Why a task failed, as the error its caller would have seen."""

    kind: ErrorKind
    message: str
    param: str | None = None


class TaskPicture(msgspec.Struct, frozen=True, kw_only=True):
    """A picture a task made. kept: None where it lies at `url`. prompt: as it was drawn from, "" where it is the caller's own."""

    kept: Kept | None = None
    url: str = ""
    width: int
    height: int
    prompt: str = ""


class NewTask(msgspec.Struct, frozen=True, kw_only=True):
    """What a client asks for. endpoint: the path it was sent to, which decides how its end is told; total: pictures."""

    request_id: str
    endpoint: str
    model: str
    prompt: str
    total: int


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """A task as it stands. Times are seconds since the epoch, None until they come. done: pictures that are there.

    request_id: of the request that made it. prompt: as its caller wrote it.
    """

    id: str
    account_id: str
    key_id: str
    request_id: str
    endpoint: str
    model: str
    prompt: str
    state: TaskState
    submitted_at: float
    scheduled_at: float | None = None
    ended_at: float | None = None
    total: int
    done: int = 0
    pictures: tuple[TaskPicture, ...] = ()
    fault: TaskFault | None = None


class TasksAsked(msgspec.Struct, frozen=True, kw_only=True):
    """Which part of a list of tasks, newest first. Pages count from 1; times are seconds since the epoch, both ends included."""

    page_no: int = 1
    page_size: int = 10
    submitted_after: float | None = None
    submitted_before: float | None = None
    model: str = ""
    state: TaskState | None = None
    key_id: str = ""


class TasksPage(msgspec.Struct, frozen=True, kw_only=True):
    tasks: tuple[Task, ...]
    total: int
