"""This is where servers are heard on what they have: how long a context, which abilities. Whatever is odd is nothing told."""

import msgspec

from qwenbox.terms.model import Capability


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """context_tokens: None where the server does not say. capabilities: empty where it does not."""

    context_tokens: int | None = None
    capabilities: frozenset[Capability] = frozenset()


class _Listed(msgspec.Struct, frozen=True, kw_only=True):
    """One model of a list. max_model_len: vLLM, SGLang; context_length: OpenRouter and others; context_window: Groq."""

    id: str = ""
    max_model_len: int | None = None
    context_length: int | None = None
    context_window: int | None = None


class _List(msgspec.Struct, frozen=True):
    data: list[_Listed] = []


class _Settings(msgspec.Struct, frozen=True):
    n_ctx: int | None = None


class _Modalities(msgspec.Struct, frozen=True):
    vision: bool = False


class _Props(msgspec.Struct, frozen=True):
    default_generation_settings: _Settings = _Settings()
    modalities: _Modalities = _Modalities()


class _Shown(msgspec.Struct, frozen=True):
    model_info: dict[str, msgspec.Raw] = {}
    capabilities: list[str] = []


_OLLAMAS = {
    "completion": (Capability.CHAT, Capability.COMPLETION, Capability.JSON),
    "tools": (Capability.TOOLS,),
    "vision": (Capability.VISION,),
    "thinking": (Capability.THINKING,),
}
_LLAMAS = frozenset({Capability.CHAT, Capability.COMPLETION, Capability.TOOLS, Capability.JSON, Capability.LOGPROBS})
_NOTHING = Heard()

_list = msgspec.json.Decoder(_List)
_props = msgspec.json.Decoder(_Props)
_shown = msgspec.json.Decoder(_Shown)
_integer = msgspec.json.Decoder(int)


def models(body: bytes, name: str) -> Heard:
    """A models list. name: the model that counts; "" where the list has only one."""
    try:
        listed = _list.decode(body).data
    except (ValueError, RecursionError):
        return _NOTHING
    chosen = [one for one in listed if one.id == name] or (listed if len(listed) == 1 else [])
    if not chosen:
        return _NOTHING
    one = chosen[0]
    return Heard(context_tokens=_positive(one.max_model_len or one.context_length or one.context_window))


def props(body: bytes) -> Heard:
    """llama-server's properties; its n_ctx is what one slot has."""
    try:
        said = _props.decode(body)
    except (ValueError, RecursionError):
        return _NOTHING
    vision = {Capability.VISION} if said.modalities.vision else set[Capability]()
    return Heard(context_tokens=_positive(said.default_generation_settings.n_ctx), capabilities=_LLAMAS | vision)


def show(body: bytes) -> Heard:
    """Ollama's description of a model. Its context is what the model was made for: what is loaded may be less (OLLAMA_CONTEXT_LENGTH)."""
    try:
        said = _shown.decode(body)
        lengths = [_integer.decode(value) for name, value in said.model_info.items() if name.endswith(".context_length")]
    except (ValueError, RecursionError):
        return _NOTHING
    capabilities = frozenset(ability for name in said.capabilities for ability in _OLLAMAS.get(name, ()))
    return Heard(context_tokens=_positive(lengths[0] if lengths else None), capabilities=capabilities)


def _positive(number: int | None) -> int | None:
    return number if number is not None and number > 0 else None
