"""docker/: the dashboard and Prometheus' settings name only what exists."""

import json
import re
from pathlib import Path

import pytest
import yaml

from qwenbox.server.metrics import PATH
from qwenbox.telemetry.names import FAMILIES, HISTOGRAM

DOCKER = Path(__file__).parents[3] / "docker"
DASHBOARD = json.loads((DOCKER / "grafana" / "qwenbox.json").read_text("utf-8"))

# As Prometheus knows them: a histogram is three series.
SERIES = {
    name: family
    for family in FAMILIES.values()
    for name in ([f"{family.name}_{part}" for part in ("bucket", "sum", "count")] if family.kind == HISTOGRAM else [family.name])
}


def expressions() -> list[str]:
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]


def test_dashboard_names_only_metrics_that_exist() -> None:
    named = {name for text in [*expressions(), json.dumps(DASHBOARD["templating"])] for name in re.findall(r"\bqwenbox_\w+", text)}
    assert set() == named - SERIES.keys()


def test_dashboard_shows_every_metric() -> None:
    named = {name for text in expressions() for name in re.findall(r"\bqwenbox_\w+", text)}
    assert set() == FAMILIES.keys() - {SERIES[name].name for name in named}


def test_dashboard_asks_only_for_labels_that_the_metrics_have() -> None:
    for text in expressions():
        labels = {label for name in re.findall(r"\bqwenbox_\w+", text) for label in SERIES[name].labels} | {"le"}
        asked = set(re.findall(r"(\w+)(?:=~|!~|=|!=)\"", text))
        asked |= {label for group in re.findall(r"by \(([^)]*)\)", text) for label in re.split(r",\s*", group)}
        assert set() == asked - labels, text


def test_dashboards_panels_do_not_lie_on_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells


def test_prometheus_reads_the_boxs_metrics_with_its_admin_key() -> None:
    (job,) = yaml.safe_load((DOCKER / "prometheus.yml").read_text("utf-8"))["scrape_configs"]
    assert PATH == job["metrics_path"]
    assert "Bearer" == job["authorization"]["type"]
    compose = yaml.safe_load((DOCKER / "observability.yaml").read_text("utf-8"))
    secret = job["authorization"]["credentials_file"].removeprefix("/run/secrets/")
    assert secret in compose["services"]["prometheus"]["secrets"]
    assert {"environment": "QWENBOX_ADMIN_KEY"} == compose["secrets"][secret]
    host, port = job["static_configs"][0]["targets"][0].split(":")
    box = yaml.safe_load((DOCKER / "compose.yaml").read_text("utf-8"))["services"][host]
    assert any(str(published).endswith(f":{port}") for published in box["ports"])


@pytest.mark.parametrize("service", ["prometheus", "grafana"])
def test_files_that_compose_mounts_are_here(service: str) -> None:
    compose = yaml.safe_load((DOCKER / "observability.yaml").read_text("utf-8"))
    sources = [volume.split(":")[0] for volume in compose["services"][service]["volumes"]]
    mounted = [source for source in sources if source.startswith("./")]
    assert mounted and all((DOCKER / source).is_file() for source in mounted)
    assert {source for source in sources if not source.startswith("./")} <= compose["volumes"].keys()
