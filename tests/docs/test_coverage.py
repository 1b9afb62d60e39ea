"""The page of what is served says what the routes say, and has a test for each."""

import importlib.util
from pathlib import Path
from types import ModuleType

import msgspec
import pytest

from support.markdown import ROOT


@pytest.fixture(scope="module")
def coverage() -> ModuleType:
    spec = importlib.util.spec_from_file_location("coverage_page", ROOT / "tools" / "coverage_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_page_of_coverage_is_as_the_routes_are(coverage: ModuleType) -> None:
    stale = [path.name for path, text in coverage.pages().items() if not path.is_file() or path.read_text("utf-8") != text]
    assert [] == stale, "run: python tools/coverage_page.py"


def test_every_route_has_a_test_that_names_it(coverage: ModuleType) -> None:
    assert [] == coverage.faults(coverage.evidence())


def test_route_is_told_when_its_evidence_is_none(coverage: ModuleType, tmp_path: Path) -> None:
    found = coverage.evidence()
    place, one = next(iter(found.items()))
    (tmp_path / "test_a.py").write_text("@pytest.mark.skip\ndef test_off(): ...\ndef test_on(): ...\ndef helper(): call()\n")

    def faults(**changed: str) -> list[str]:
        return [
            fault for fault in coverage.faults({place: msgspec.structs.replace(one, **changed)}, tmp_path) if "no evidence" not in fault
        ]

    assert [] == faults(test="test_a.py::test_on", call="call()")
    assert ["no test"] == [word for fault in faults(test="test_a.py::test_off", call="call()") for word in ("no test",) if word in fault]
    assert 1 == len(faults(test="test_a.py::helper", call="call()"))
    assert 1 == len(faults(test="test_b.py::test_on", call="call()"))
    assert 1 == len(faults(test="test_a.py::test_on", call="never()"))
    assert len(found) - 1 == len([fault for fault in coverage.faults({place: one}) if "has no evidence" in fault])
    assert ["dashscope GET /none is no route"] == [
        fault for fault in coverage.faults({**found, ("dashscope", "GET /none"): one}) if "is no route" in fault
    ]
