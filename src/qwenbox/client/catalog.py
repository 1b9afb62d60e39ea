"""This is where the bodies about models have their shapes: what each is, where it runs, how far its weights are, how fast it is."""

from qwenbox.client.shapes import PriceRow, Told


class Speed(Told, frozen=True, kw_only=True):
    """One measurement. deployment: where it ran. prefill_tokens_s: of prompt read, decode_tokens_s: written; null: too few to say."""

    at: float
    deployment: str
    ttft_s: float
    input_tokens: int
    output_tokens: int
    prefill_tokens_s: float | None
    decode_tokens_s: float | None


class WeightsFile(Told, frozen=True, kw_only=True):
    """A file that a deployment needs. name: in the weights catalog. licence: "" if unknown. bytes_total: null if nobody knows yet.

    bytes_here: on this machine already, of a pull that was interrupted, too.
    """

    name: str
    title: str
    file: str
    licence: str
    bytes_here: int
    bytes_total: int | None
    is_here: bool


class DeploymentInfo(Told, frozen=True, kw_only=True):
    """Where a model runs. kind: of its engine. weights: their title. state: ready, idle, starting, missing or down; detail: what to do.

    files: that it needs on this machine; none for somebody else's server. can_load: it takes memory while it is loaded, and can be
    told to load and unload.
    """

    name: str
    kind: str
    weights: str
    state: str
    detail: str
    context_tokens: int | None
    can_load: bool
    files: tuple[WeightsFile, ...]


class Model(Told, frozen=True, kw_only=True):
    """A model of the catalog; the name "*" answers to every name that no other model has.

    capabilities: of chat, completion, tools, json, thinking, vision, logprobs, embedding, rerank, image. max_input_tokens,
    max_output_tokens: null: the context decides. price: the row in force, null where it costs nothing. deployments: best first.
    speed: the last measurement, null before the first. pull: of its weights, none, running, done, failed or cancelled.
    """

    name: str
    aliases: tuple[str, ...]
    description: str
    capabilities: tuple[str, ...]
    context_tokens: int
    max_input_tokens: int | None
    max_output_tokens: int | None
    price: PriceRow | None
    deployments: tuple[DeploymentInfo, ...]
    speed: Speed | None
    pull: str


class PulledFile(Told, frozen=True, kw_only=True):
    """state: as in Pull. phase: of a running one, waiting, fetching or checking. source: where its bytes are from, null at first."""

    name: str
    title: str
    state: str
    phase: str | None
    source: str | None
    bytes_done: int
    bytes_total: int | None
    rate_bytes_s: float
    reason: str


class Pull(Told, frozen=True, kw_only=True):
    """How far a model's weights are. state: none, running, done, failed or cancelled, which keeps what is here.

    bytes_total: null until somebody said it. rate_bytes_s: over the last seconds. eta_s: null where nobody can tell.
    reason: why it failed, and what to do.
    """

    model: str
    state: str
    bytes_done: int
    bytes_total: int | None
    rate_bytes_s: float
    eta_s: float | None
    reason: str
    files: tuple[PulledFile, ...]
