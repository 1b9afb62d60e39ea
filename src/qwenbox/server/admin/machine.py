"""This is where the admin API finds what runs below the models: weights and their pulls, what can be loaded, what can be measured."""

from collections.abc import Mapping

import msgspec

from qwenbox.gateway.speed import Speeds
from qwenbox.terms.engine import Unloadable
from qwenbox.weights.pulls import Pulls
from qwenbox.weights.store import WeightsStore


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """files: names of the weights that each deployment needs here, by the deployment's name. loadable: deployments by name that take
    memory only from their first call on."""

    store: WeightsStore
    pulls: Pulls
    files: Mapping[str, tuple[str, ...]]
    loadable: Mapping[str, Unloadable]
    speeds: Speeds
