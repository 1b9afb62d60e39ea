"""This is where tokens are counted in inclusive buckets."""

import msgspec


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of one call; every bucket is inclusive (cached ⊂ input, image ⊂ input, reasoning ⊂ output).

    cached_tokens, reasoning_tokens, image_tokens: None when the engine did not say, which is not 0.
    is_counted: True when we counted them ourselves because an engine reported none.
    """

    input_tokens: int
    output_tokens: int
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    image_tokens: int | None = None
    is_counted: bool = False

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens
