"""This is where what the box finds wrong is said in the visitor's language: what is so, and what to do about it here."""

from qwenbox.client.system import Finding
from qwenbox.console.pages.models.card import STATES
from qwenbox.console.texts import Texts

# By the finding's code: what is so, what to do. A code that is not here is said in the box's own English.
_SENTENCES = {
    "home_ok": ("{home} is writable, {free} free", ""),
    "home_full": (
        "{home} has {free} free, and what is still to be fetched needs {needed}",
        "Free some space, or move the data folder (QWENBOX_HOME) to a larger disk.",
    ),
    "home_unwritable": ("{home} cannot be written: {reason}", "Make the folder writable, or point QWENBOX_HOME at another."),
    "engine_ok": ("The embedded engine is installed, {cores} cores", ""),
    "engine_missing": ("The embedded engine is not installed", "Install it: pip install xllamacpp"),
    "engine_library": (
        "The library libgomp.so.1 is missing, which the embedded engine needs",
        "Install it: apt-get install libgomp1 (Debian, Ubuntu), dnf install libgomp (Fedora).",
    ),
    "weights_here": ("{title} is here", ""),
    "weights_fetching": ("{title} is being fetched {share}", ""),
    "weights_missing": ("{title} is not here, which {models} would use", "Fetch it on the page Models, or run: qwenbox pull {name}"),
    "model_ok": ("{model}: {states}", ""),
    "model_missing": ("{model} cannot answer: its weights are not here", "Fetch them on the page Models, or run: qwenbox pull {model}"),
    "model_down": ("{model} cannot answer: {states}", "See that its server runs and that its key is good; the box's log says more."),
    "database_ok": ("The database ({kind}) takes every row", ""),
    "database_closed": ("The database ({kind}) takes no rows; calls are refused until it does", "See that it runs, and has space."),
    "valkey_ok": ("The shared store answers", ""),
    "valkey_down": ("The shared store does not answer", "See that Valkey runs at the address of [valkey] url."),
    "child_crashed": (
        "The engine {engine} crashed and was started again, {count} times",
        "Too little memory is the usual cause: lower kv_tokens or slots of [engine.{engine}]. The box's log says more.",
    ),
    "deployment_resting": (
        "{deployment} kept failing and is left alone for a while",
        "See that its server answers, and that its key is good.",
    ),
}


def found(t: Texts, finding: Finding) -> str:
    return _said(t, finding, 0) or finding.found


def todo(t: Texts, finding: Finding) -> str:
    return _said(t, finding, 1) or finding.todo


def _said(t: Texts, finding: Finding, place: int) -> str:
    known = _SENTENCES.get(finding.code)
    if known is None or not known[place]:
        return ""
    facts = dict(finding.facts)
    if "states" in facts:
        facts["states"] = ", ".join(t(STATES.get(state, (state, ""))[0]) for state in facts["states"].split(", "))
    try:
        return t(known[place], **facts)
    except KeyError:  # a newer box that tells other facts
        return ""
