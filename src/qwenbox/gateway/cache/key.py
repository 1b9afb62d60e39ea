"""This is where it is decided which calls the cache has a part in, and by what name an answer is found again.

The name is made of everything that shapes an answer: the whole complete request, field by field as it is declared (a new field can't be
left out), the weights that answer, the model's card, and who may share it.
"""

import hashlib

import msgspec

from qwenbox import __version__
from qwenbox.gateway.cache.config import Scope
from qwenbox.gateway.catalog import Deployment, Model, TextRequest
from qwenbox.terms.caller import CachePolicy, Caller
from qwenbox.terms.chat import ChatRequest
from qwenbox.terms.model import Choice

# A change of what events mean makes another name of every answer.
_FORM = f"1 {__version__}"

_encoder = msgspec.msgpack.Encoder(order="deterministic")


def is_wanted(request: TextRequest, policy: CachePolicy) -> bool:
    """Whether a call like this may have a kept answer. request: complete.

    AUTO takes what its request determines: a seed was given, or the likeliest tokens are asked for. A picture behind an address that was
    not fetched may be another one tomorrow.
    """
    if policy is CachePolicy.OFF:
        return False
    if policy is CachePolicy.AUTO and request.sampling.seed is None and request.sampling.temperature != 0:
        return False
    return not _looks_elsewhere(request)


class Names:
    """Makes keys. What they have in common is kept by model and deployment."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._cards: dict[str, tuple[Model, bytes]] = {}

    def keys(self, caller: Caller, model: Model, request: TextRequest) -> tuple[str, ...]:
        """Of every answer that a call may have, best first: the preferred deployment's; where calls are spread over deployments, theirs."""
        entry, deployments = model.entry, model.deployments
        if entry.choice is Choice.ORDERED or len(deployments) == 1:
            deployments = deployments[:1]
        else:
            deployments = tuple(one for one in deployments if entry.shares.get(one.name, 1.0))
        found = (self.key(caller, model, deployment, request) for deployment in deployments)
        return tuple(dict.fromkeys(key for key in found if key is not None))

    def key(self, caller: Caller, model: Model, deployment: Deployment, request: TextRequest) -> str | None:
        """64 hex digits; None where nobody knows what weights would answer."""
        identity = deployment.engine.facts.identity
        if not identity:
            return None
        owner = caller.account_id if self._scope is Scope.ACCOUNT else ""
        digest = hashlib.sha256(self._card(model))
        digest.update(_encoder.encode((owner, identity, type(request).__name__, request)))
        return digest.hexdigest()

    def _card(self, model: Model) -> bytes:
        name = model.entry.name
        found = self._cards.get(name)
        if found is None or found[0] is not model:
            found = self._cards[name] = (model, _encoder.encode((_FORM, self._scope, name, model.entry.card)))
        return found[1]


def _looks_elsewhere(request: TextRequest) -> bool:
    return isinstance(request, ChatRequest) and any(not (image.data or image.url.startswith("data:")) for image in request.pictures)
