"""This is where the gateways that are measured beside the box say how they are installed, started and asked; one environment each.

Every one stands alone on its core, with one worker, in front of the same instant upstream.
"""

import os
import shutil
import subprocess
import venv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bench.box import BOXES
from bench.process import Command, free_port
from bench.target import KEY, Place, Target, bearer

SGLANG_ROUTER = "sglang-router==0.3.2"
LITELLM = "litellm[proxy]==1.106.2"  # later ones may not resolve
PORTKEY = "@portkey-ai/gateway@1.15.2"


def peers_folder() -> Path:
    """Where the peers' environments lie: outside the checkout, because they are large and survive it."""
    return Path(os.environ.get("QWENBOX_HOME") or "~/.qwenbox").expanduser() / "bench"


def _nginx(place: Place) -> Command:
    for name in ("body", "proxy", "fastcgi", "uwsgi", "scgi"):
        (place.folder / name).mkdir()
    config = place.write(
        "nginx.conf",
        f"""
        daemon off; master_process off; pid {place.folder}/pid; error_log {place.folder}/error.log; worker_rlimit_nofile 65536;
        events {{ worker_connections 16384; }}
        http {{
          access_log off; keepalive_requests 1000000;
          client_body_temp_path {place.folder}/body; proxy_temp_path {place.folder}/proxy; fastcgi_temp_path {place.folder}/fastcgi;
          uwsgi_temp_path {place.folder}/uwsgi; scgi_temp_path {place.folder}/scgi;
          upstream instant {{ server 127.0.0.1:{place.upstream}; keepalive 64; keepalive_requests 1000000; }}
          server {{
            listen 127.0.0.1:{place.port} backlog=8192;
            location / {{ proxy_pass http://instant; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; }}
          }}
        }}""",
    )
    binary = shutil.which("nginx") or "/usr/sbin/nginx"
    arguments = (binary, "-p", str(place.folder), "-e", str(place.folder / "error.log"), "-c", config)
    return Command(arguments=arguments, ready=f"http://127.0.0.1:{place.port}/health")


def _no_nginx() -> str:
    return "" if shutil.which("nginx") or Path("/usr/sbin/nginx").exists() else "nginx is not installed"


def _sglang(place: Place) -> Command:
    options = ["--host", "127.0.0.1", "--port", str(place.port), "--worker-urls", place.upstream_url, "--policy", "random"]
    options += ["--prometheus-port", str(free_port()), "--log-level", "error", "--max-concurrent-requests", "-1"]
    return Command(
        arguments=(str(peers_folder() / "sglang-router" / "bin" / "sglang-router"), "launch", *options),
        # It is up before it knows its worker: only then a call is answered.
        ready=f"http://127.0.0.1:{place.port}/readiness",
        environment={"HF_HUB_OFFLINE": "1"},
    )


def _portkey(place: Place) -> Command:
    server = peers_folder() / "portkey" / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    return Command(
        arguments=(shutil.which("node") or "node", str(server), f"--port={place.port}", "--headless"),
        ready=f"http://127.0.0.1:{place.port}/",
        environment={"NODE_ENV": "production"},
    )


def _portkey_headers(place: Place) -> Mapping[str, str]:
    return {
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": f"{place.upstream_url}/v1",
        "authorization": f"Bearer {KEY}",
    }


def _litellm(place: Place) -> Command:
    config = place.write(
        "config.yaml",
        f"""
model_list:
  - model_name: instant
    litellm_params: {{model: openai/instant, api_base: "{place.upstream_url}/v1", api_key: none}}
general_settings: {{master_key: {KEY}}}
litellm_settings: {{telemetry: false}}
""",
    )
    options = ["--config", config, "--host", "127.0.0.1", "--port", str(place.port), "--num_workers", "1", "--telemetry", "False"]
    return Command(
        arguments=(str(peers_folder() / "litellm" / "bin" / "litellm"), *options),
        ready=f"http://127.0.0.1:{place.port}/health/liveliness",
        environment={"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"},
        limit_s=180,
    )


def _absent(path: str) -> Callable[[], str]:
    return lambda: "" if (peers_folder() / path).exists() else "not installed"


def _pip(folder: str, requirement: str) -> Callable[[], None]:
    def install() -> None:
        home = peers_folder() / folder
        venv.create(home, with_pip=True)
        _run([str(home / "bin" / "pip"), "install", "--quiet", requirement])

    return install


def _npm() -> None:
    home = peers_folder() / "portkey"
    home.mkdir(parents=True, exist_ok=True)
    _run(["npm", "install", "--no-audit", "--no-fund", "--prefix", str(home), PORTKEY])


def _run(command: Sequence[str]) -> None:
    subprocess.run(list(command), check=True)


SETUP = "python -m bench setup"
TARGETS: tuple[Target, ...] = (
    Target(name="nginx", governs="nothing", missing=_no_nginx, hint="apt-get install nginx-light", command=_nginx),
    *BOXES,
    Target(
        name="sglang-router",
        governs="worker choice",
        missing=_absent("sglang-router/bin/sglang-router"),
        hint=f"{SETUP} sglang-router",
        command=_sglang,
        install=_pip("sglang-router", SGLANG_ROUTER),
    ),
    Target(
        name="portkey",
        governs="provider choice",
        missing=_absent("portkey/node_modules/@portkey-ai/gateway"),
        hint=f"{SETUP} portkey",
        command=_portkey,
        headers=_portkey_headers,
        install=_npm,
    ),
    Target(
        name="litellm",
        governs="a master key",
        missing=_absent("litellm/bin/litellm"),
        hint=f"{SETUP} litellm",
        command=_litellm,
        headers=bearer,
        install=_pip("litellm", LITELLM),
    ),
)
