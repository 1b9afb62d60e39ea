"""The pages that are made from the code say what the code says."""

import importlib.util
from types import ModuleType

import msgspec
import pytest

from qwenbox.config import Config
from qwenbox.terms.errors import ErrorKind
from support.markdown import ROOT


@pytest.fixture(scope="module")
def references() -> ModuleType:
    spec = importlib.util.spec_from_file_location("references", ROOT / "tools" / "references.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pages_made_from_the_code_are_as_the_code_is(references: ModuleType) -> None:
    stale = [path.name for path, text in references.pages().items() if not path.is_file() or path.read_text("utf-8") != text]
    assert [] == stale, "run: python tools/references.py"


def test_configuration_has_every_table_and_setting(references: ModuleType) -> None:
    text = (ROOT / "docs" / "configuration.md").read_text("utf-8")
    missing: list[str] = []
    for field in msgspec.structs.fields(Config):
        if isinstance(field.default, msgspec.Struct):
            section = text.partition(f"## `[{field.name}]`\n")[2].partition("\n## ")[0]
            missing += [f"{field.name}.{name}" for name in field.default.__struct_encode_fields__ if f"| `{name}` |" not in section]
    assert [] == missing


def test_errors_have_every_kind_in_every_dialect() -> None:
    text = (ROOT / "docs" / "errors.md").read_text("utf-8")
    for dialect in ("DashScope", "OpenAI", "Anthropic"):
        section = text.partition(f"## {dialect}\n")[2].partition("\n## ")[0]
        assert [] == [kind for kind in ErrorKind if f"| `{kind}` |" not in section]
