"""This is where a model says what it is and can: its card."""

from enum import StrEnum

import msgspec

from qwenbox.terms.chat import Sampling


class Capability(StrEnum):
    CHAT = "chat"
    COMPLETION = "completion"
    TOOLS = "tools"
    JSON = "json"
    THINKING = "thinking"
    VISION = "vision"
    LOGPROBS = "logprobs"
    EMBEDDING = "embedding"
    RERANK = "rerank"
    IMAGE = "image"


_NO_TEXT = frozenset({Capability.EMBEDDING, Capability.RERANK, Capability.IMAGE})


class Choice(StrEnum):
    """Which of a model's deployments is asked first."""

    ORDERED = "ordered"  # as they are listed
    WEIGHTED = "weighted"  # drawn by their shares
    LEAST_BUSY = "least_busy"  # where the fewest calls run for its share
    PREFIX = "prefix"  # the same beginning of the prompt where it was before, unless that one is much busier


class PriceTier(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What tokens cost in a request whose input is at most `up_to_tokens` long; None: however long.

    Integer micro-units of the book's currency per million tokens (1 CNY per million = 1_000_000).
    cached: input the engine had read before; image: input that pictures made; reasoning: output that was thought, not said.
    None: cached_permille of input, input, output. picture: of a model that draws, for each picture; takes the place of output.
    """

    up_to_tokens: int | None = None
    input_micros: int
    output_micros: int
    cached_micros: int | None = None
    image_micros: int | None = None
    reasoning_micros: int | None = None
    picture_micros: int | None = None


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """What a model costs now. tiers: by the input's length, shortest first, the last one without end."""

    version: str
    currency: str
    tiers: tuple[PriceTier, ...]


class VectorFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a model of embeddings or of reranking takes. most_texts: texts or documents in one call. most_text_tokens: of each of them,
    None: as many as the context. most_call_tokens: of all together, None: without a limit of its own.

    dimensions: that may be asked for, the one that an unset `dimensions` means first; (): those that its weights have.
    """

    most_texts: int = 10
    most_text_tokens: int | None = None
    most_call_tokens: int | None = None
    dimensions: tuple[int, ...] = ()


class ImageFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a model that draws takes. width, height: of a picture whose size nobody said, in pixels; least_side, most_side: of any.

    most_n: pictures in one call. most_inputs: pictures to draw from. is_task_only: natively it is called as a task and not otherwise.
    """

    width: int = 1024
    height: int = 1024
    least_side: int = 64
    most_side: int = 2048
    most_n: int = 4
    most_inputs: int = 0
    is_task_only: bool = False


class ModelCard(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Facts about a public model, as data; a family's quirks live here and nowhere else.

    context_tokens: input + output together. max_input_tokens, max_output_tokens: None means the context decides.
    sampling: the model's own defaults (level `strict`); at `documented` temperature and top_p become 1.0.
    is_thinking_default: what an unset enable_thinking means. is_cumulative_default: at `strict`, native streams of this
    model repeat the whole text unless the caller says otherwise (wire reference 2.2), and its native default format is text.
    vectors: of models with the capability EMBEDDING or RERANK. images: of models with the capability IMAGE.
    """

    context_tokens: int
    max_input_tokens: int | None = None
    max_output_tokens: int | None = None
    capabilities: frozenset[Capability] = frozenset({Capability.CHAT})
    sampling: Sampling = Sampling()
    is_thinking_default: bool = False
    is_cumulative_default: bool = True
    description: str = ""
    vectors: VectorFacts = VectorFacts()
    images: ImageFacts = ImageFacts()

    @property
    def is_text(self) -> bool:
        """Whether it writes. A card that says nothing of chats is one of texts all the same, unless it is of something else."""
        return Capability.CHAT in self.capabilities or _NO_TEXT.isdisjoint(self.capabilities)

    @property
    def output_limit_tokens(self) -> int:
        """The most a caller may ask for."""
        return self.max_output_tokens or self.context_tokens

    @property
    def input_limit_tokens(self) -> int:
        """The longest prompt: at least one token of the context stays for the answer."""
        return min(self.max_input_tokens or self.context_tokens, self.context_tokens - 1)
