"""This is where the bodies of the admin API for batches have their shapes: every account's, as their owners see them and who pays."""

from typing import Annotated, Literal, TypeAlias

from msgspec import Meta

from qwenbox.client.shapes import Name, Note, Paging, Reference, Sent, Text, Told

BatchState: TypeAlias = Literal["validating", "in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled"]
BatchEndpoint: TypeAlias = Annotated[str, Meta(max_length=100)]


class BatchFault(Told, frozen=True, kw_only=True):
    """Why an input file was not run. line: of the file, from 1; null for the file as a whole."""

    code: str
    message: str
    line: int | None = None


class BatchJob(Told, frozen=True, kw_only=True):
    """A batch as it stands now. key_id: who pays for its lines, and may use what. ended_at: however it ended, null until then.

    expires_at: when its window ends. total: 0 until its file is checked; completed, failed: lines that have their result. The tokens and
    the cost are of those.
    """

    id: str
    account_id: str
    key_id: str
    name: str
    description: str
    endpoint: str
    model: str
    status: BatchState
    created_at: float
    in_progress_at: float | None = None
    ended_at: float | None = None
    expires_at: float | None = None
    input_file_id: str
    output_file_id: str | None = None
    error_file_id: str | None = None
    faults: tuple[BatchFault, ...] = ()
    total: int = 0
    completed: int = 0
    failed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_micros: int = 0
    currency: str = ""

    @property
    def is_over(self) -> bool:
        return self.ended_at is not None


class BatchesAsked(Paging, frozen=True, kw_only=True):
    """Newest first; every filter that is named must hold. account: an id or name. name: a part of it. is_open: those not over yet."""

    account: Text = ""
    name: Text = ""
    is_open: bool | None = None


class NewBatchJob(Sent, frozen=True, kw_only=True):
    """key: an id or name; its account owns the input file, pays, and finds the results. window: as in the Batches API, 24h to 336h."""

    key: Name
    input_file_id: Reference
    endpoint: BatchEndpoint
    window: Annotated[str, Meta(max_length=10)] = "24h"
    name: Text = ""
    description: Note = ""
