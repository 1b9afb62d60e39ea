"""This is where llama.cpp's server runs: a process of its own that serves one GGUF file on a loopback port.

python -m qwenbox.children.llama — reads one line of JSON (`Settings`) from stdin, prints one line {"address": …} on stdout once
it serves, and ends when stdin closes, so that it never outlives whoever started it. Imports nothing of the gateway.
"""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownParameterType=false, reportAttributeAccessIssue=false
# xllamacpp is a compiled module without stubs; this file is the only one that sees it.

import ctypes
import json
import os
import signal
import sys
from typing import TypedDict

import xllamacpp

PR_SET_PDEATHSIG = 1
MOST_PICTURE_TOKENS = 16_384  # no Qwen model sees more


class Settings(TypedDict):
    """What the parent decides. Tokens for sizes; threads of computation; nice: added to this process's own.

    projector: the file that makes the model see, "" for none. marker: what stands for a picture in a prompt.
    pooling: "" writes text; "model", "mean", "cls", "last" or "rank" make vectors or scores: how the states of a text become one.
    """

    parent_pid: int
    model: str
    projector: str
    marker: str
    key: str
    context_tokens: int
    slots: int
    threads: int
    batch_tokens: int
    is_prompt_cached: bool
    cache_mib: int
    nice: int
    pooling: str


def main() -> None:
    """Serve until stdin closes."""
    line = sys.stdin.readline()
    if not line:
        return
    settings: Settings = json.loads(line)
    _die_with_parent(settings["parent_pid"])
    if settings["nice"]:
        os.nice(settings["nice"])
    if settings["marker"]:
        os.environ["LLAMA_MEDIA_MARKER"] = settings["marker"]
    server = xllamacpp.Server(_params(settings))
    print(json.dumps({"address": server.listening_address}), flush=True)
    os.dup2(2, 1)  # whatever a library prints from here on is log; nobody reads our stdout any more
    sys.stdin.read()
    # Not `return`: the server's destructor waits for running calls, and nobody is left to read them.
    os._exit(0)


def _die_with_parent(parent_pid: int) -> None:
    """The kernel kills us with the parent even while a long load keeps us from looking at stdin (Linux; elsewhere stdin must do)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(0)


def _params(settings: Settings) -> "xllamacpp.CommonParams":
    params = xllamacpp.CommonParams()
    params.model.path = settings["model"]
    if settings["projector"]:
        params.mmproj.path = settings["projector"]
        # The parent decides how large a picture is seen; llama.cpp must change nothing about it.
        params.image_min_tokens = 1
        params.image_max_tokens = MOST_PICTURE_TOKENS
    params.no_mmproj = not settings["projector"]
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [settings["key"]]
    params.cors_origins = "http://127.0.0.1"  # its default lets every web page in
    params.ui = False
    params.endpoint_metrics = False
    params.endpoint_props = False
    params.n_ctx = settings["context_tokens"]
    params.n_parallel = settings["slots"]
    params.kv_unified = True
    params.n_batch = settings["batch_tokens"]
    params.n_ubatch = settings["batch_tokens"]
    params.cpuparams.n_threads = settings["threads"]
    params.cpuparams_batch.n_threads = settings["threads"]
    params.cache_prompt = settings["is_prompt_cached"]
    params.cache_ram_mib = settings["cache_mib"]
    params.cache_idle_slots = settings["is_prompt_cached"]
    params.cont_batching = True
    params.ctx_shift = False
    params.fit_params = False  # the parent has counted memory; a silently smaller context would break its promise
    params.offline = True
    if settings["pooling"]:
        params.embedding = True
        kind = "UNSPECIFIED" if settings["pooling"] == "model" else settings["pooling"].upper()
        kinds = xllamacpp.llama_pooling_type  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] - not in its stubs
        params.pooling_type = getattr(kinds, f"LLAMA_POOLING_TYPE_{kind}")  # pyright: ignore[reportUnknownArgumentType]
        # A text is pooled in one step: none may be cut in two.
        params.n_batch = params.n_ubatch = settings["context_tokens"] // settings["slots"]
    params.n_threads_http = 2 * settings["slots"] + 4
    params.verbosity = 2
    return params


if __name__ == "__main__":
    main()
