"""This is where the service's stream is written down as loosely as it comes (wire reference 2.3–2.6, 3.3)."""

import msgspec

from qwenbox.terms.events import TokenLogprob


class HeardTokens(msgspec.Struct, frozen=True):
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    image_tokens: int | None = None


class HeardUsage(msgspec.Struct, frozen=True):
    input_tokens: int = 0
    output_tokens: int = 0
    prompt_tokens_details: HeardTokens | None = None
    input_tokens_details: HeardTokens | None = None
    output_tokens_details: HeardTokens | None = None
    image_tokens: int | None = None

    def pictures(self) -> int | None:
        """Input tokens that pictures made: in the details since 2026, beside the others before."""
        detail = self.input_tokens_details.image_tokens if self.input_tokens_details else None
        return self.image_tokens if detail is None else detail


class HeardInput(msgspec.Struct, frozen=True):
    """Of a call that is all input."""

    total_tokens: int | None = None
    input_tokens: int | None = None

    @property
    def tokens(self) -> int | None:
        return self.input_tokens if self.total_tokens is None else self.total_tokens


class HeardFunction(msgspec.Struct, frozen=True):
    name: str | None = None
    arguments: str | None = None


class HeardCall(msgspec.Struct, frozen=True):
    function: HeardFunction
    index: int | None = None
    id: str | None = None


class HeardItem(msgspec.Struct, frozen=True):
    """image_hw: height and width of each picture."""

    text: str | None = None
    image_hw: list[tuple[int, int]] | None = None


class HeardMessage(msgspec.Struct, frozen=True):
    content: str | list[HeardItem] | None = None
    reasoning_content: str | None = None
    tool_calls: list[HeardCall] | None = None

    def text(self) -> str:
        if isinstance(self.content, list):
            return "".join(item.text or "" for item in self.content)
        return self.content or ""

    def sizes(self) -> tuple[tuple[int, int], ...]:
        """Width and height of the pictures, where the service tells them."""
        if not isinstance(self.content, list):
            return ()
        return tuple((width, height) for item in self.content for height, width in item.image_hw or ())


class HeardToken(msgspec.Struct, frozen=True):
    token: str
    logprob: float | None = None
    bytes: list[int] | None = None
    top_logprobs: list["HeardToken"] | None = None

    def term(self) -> TokenLogprob:
        raw = self.token.encode() if self.bytes is None else bytes([number & 0xFF for number in self.bytes])
        rivals = tuple(rival.term() for rival in self.top_logprobs or ())
        return TokenLogprob(text=self.token, raw=raw, logprob=float("-inf") if self.logprob is None else self.logprob, rivals=rivals)


class HeardLogprobs(msgspec.Struct, frozen=True):
    content: list[HeardToken] | None = None


class HeardChoice(msgspec.Struct, frozen=True, kw_only=True):
    message: HeardMessage
    finish_reason: str | None = None
    index: int | None = None
    logprobs: HeardLogprobs | None = None

    def tokens(self) -> tuple[TokenLogprob, ...]:
        return tuple(token.term() for token in (self.logprobs.content if self.logprobs else None) or ())


class HeardOutput(msgspec.Struct, frozen=True):
    choices: list[HeardChoice] | None = None
    text: str | None = None
    finish_reason: str | None = None

    def as_choice(self) -> HeardChoice:
        """Text format, should a model know no other."""
        return HeardChoice(message=HeardMessage(content=self.text), finish_reason=self.finish_reason)


class HeardFrame(msgspec.Struct, frozen=True):
    output: HeardOutput
    usage: HeardUsage = HeardUsage()


class HeardError(msgspec.Struct, frozen=True):
    code: str | None = None
    message: str | None = None
