"""This is where it is known how much of a prompt an engine could have kept: its longest beginning that an earlier prompt had, too."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import assert_never

import msgspec

from qwenbox.terms.chat import ChatRequest, ImagePart, Message, Part, TextPart, VideoPart

# About 100 bytes each.
_MOST_BEGINNINGS = 20_000


class PrefixesConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[prefixes]`: whether usage tells how much of each chat's prompt an earlier one had begun with; about 20 µs a call."""

    enabled: bool = False


class Prefixes:
    """Beginnings of recent prompts, by account and model: hashes of whole messages one after another, never their texts."""

    def __init__(self, most: int = _MOST_BEGINNINGS) -> None:
        """most: beginnings kept; the longest unused is forgotten first."""
        self._most = most
        self._known: OrderedDict[int, None] = OrderedDict()

    def share(self, account_id: str, request: ChatRequest) -> float:
        """How much of the prompt's text, 0 to 1, an earlier one of this account and model began with; this one is known from now on.

        Whole messages count, and tools only as a whole, since templates put them first.
        """
        tools = tuple((tool.name, tool.description, tool.parameters) for tool in request.tools)
        chain = hash((account_id, request.model, tools))
        size = sum(len(name) + len(description) + len(parameters) for name, description, parameters in tools)
        reusable, is_known, known = 0, True, self._known
        for message in request.messages:
            chain = hash((chain, _identity(message)))
            # A message without text still has its marks around it.
            size += 1 + len(message.text) + sum(len(call.name) + len(call.arguments) for call in message.tool_calls)
            is_known = is_known and chain in known
            if is_known:
                reusable = size
            known[chain] = None
            known.move_to_end(chain)
        while len(known) > self._most:
            known.popitem(last=False)
        return reusable / size if size else 0.0


def _identity(message: Message) -> Hashable:
    parts = tuple(_seen(part) for part in message.content)
    calls = tuple((call.id, call.name, call.arguments) for call in message.tool_calls)
    return message.role, parts, message.name, calls, message.tool_call_id, message.reasoning


def _seen(part: Part) -> Hashable:
    match part:
        case TextPart():
            return part.text
        case ImagePart():
            return part.data or part.url
        case VideoPart():
            return tuple(frame.data or frame.url for frame in part.frames)
        case _:
            assert_never(part)
