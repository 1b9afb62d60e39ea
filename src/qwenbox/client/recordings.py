"""This is where prompts and answers that were kept have their shapes in the admin API."""

from qwenbox.client.shapes import At, Sent, Text, Told


class RecordingState(Told, frozen=True, kw_only=True):
    """is_enabled: `[recording] enabled`; where it is false, nothing new is kept. max_bytes: of one prompt, or of one answer.

    count: how many recordings there are; oldest_at: null for none.
    """

    is_enabled: bool
    keep_days: int
    max_bytes: int
    count: int
    oldest_at: float | None


class Turn(Told, frozen=True, kw_only=True):
    """role: who said it, or what it is (prompt, text, query, document). tool_calls: name and arguments of each."""

    role: str
    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[tuple[str, str], ...] = ()


class Recording(Told, frozen=True, kw_only=True):
    """One call's prompt and answer, as its caller sent and got them. answer: a turn for each choice; empty where nothing was said.

    is_cut: something was longer than is kept: of a prompt its end is here, of an answer its beginning.
    """

    id: str
    at: float
    prompt: tuple[Turn, ...]
    answer: tuple[Turn, ...]
    is_cut: bool


class RecordingsForgotten(Sent, frozen=True, kw_only=True):
    """Which: of the account of this id or name, older than this moment; all where nothing is said."""

    account: Text = ""
    before: At | None = None


class Forgotten(Told, frozen=True, kw_only=True):
    """recordings: how many were deleted."""

    recordings: int
