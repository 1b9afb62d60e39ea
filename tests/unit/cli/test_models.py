"""`qwenbox models` as it is typed."""

import json
import struct
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from mirrors import blob, sha256
from qwenbox.cli.models import app

TEMPLATE = "{% if tools %}{{ tools }}{% endif %}<think>"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QWENBOX_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments])


def gguf_file(path: Path, context: int, template: str = "") -> Path:
    """The smallest file with a header like llama.cpp writes them."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value.encode())) + value.encode()

    def pair(key: str, kind: int, value: bytes) -> bytes:
        return text(key) + struct.pack("<I", kind) + value

    def texts(values: list[str]) -> bytes:
        return struct.pack("<IQ", 8, len(values)) + b"".join(text(value) for value in values)

    pairs = [
        pair("general.architecture", 8, text("qwen2")),
        *(pair(f"qwen2.{key}", 4, struct.pack("<I", 2)) for key in ("block_count", "attention.head_count", "attention.head_count_kv")),
        pair("qwen2.embedding_length", 4, struct.pack("<I", 8)),
        pair("qwen2.context_length", 4, struct.pack("<I", context)),
        pair("tokenizer.ggml.model", 8, text("gpt2")),
        pair("tokenizer.ggml.pre", 8, text("qwen2")),
        pair("tokenizer.ggml.tokens", 9, texts(["a", "b"])),
        pair("tokenizer.ggml.token_type", 9, struct.pack("<IQ2i", 5, 2, 1, 1)),
        pair("tokenizer.ggml.merges", 9, texts(["a b"])),
        pair("tokenizer.ggml.eos_token_id", 4, struct.pack("<I", 1)),
        pair("tokenizer.chat_template", 8, text(template)),
    ]
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, len(pairs)) + b"".join(pairs))
    return path


def test_list_names_weights_state_context_and_price(home: Path):
    listed = json.loads(run("list", "--json").stdout)
    assert ["qwen-turbo", "qwen-plus", "qwen-max", "qwen-vl-plus"] == [model["name"] for model in listed][:4]
    turbo = listed[0]
    assert ("Qwen2.5-Coder-0.5B-Instruct Q4_K_M", "missing") == (turbo["answered_by"][0]["title"], turbo["answered_by"][0]["presence"])
    assert (32_768, 300_000, False) == (turbo["card"]["context_tokens"], turbo["price"]["tiers"][0]["input_micros"], turbo["is_own"])


def test_list_is_what_models_alone_prints(home: Path):
    assert run().stdout == run("list").stdout
    assert "qwenbox pull NAME" in run().stdout


def test_list_names_the_engine_where_no_weights_are_needed(home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("QWENBOX_PROFILE", "echo")
    answers = json.loads(run("list", "--json").stdout)[0]["answered_by"]
    assert [("echo", None, "no weights needed")] == [(one["kind"], one["weights"], one["state"]) for one in answers]


def test_list_names_what_answers_where_better_weights_are_not_here(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = gguf_file(tmp_path / "small.gguf", 4_096)
    home.mkdir()
    (home / "qwenbox.toml").write_text(
        f'[weights."qwen2.5-coder-0.5b-instruct-q4_k_m"]\ntitle = "Small"\nrepository = ""\nsha256 = ""\nparts = []\npath = "{file}"\n'
    )
    monkeypatch.setenv("COLUMNS", "40")
    line = next(line for line in run().stdout.splitlines() if line.startswith(" qwen-vl-plus "))
    assert ["qwen-vl-plus", "Small", "(pictures", "read", "by", "RapidOCR)", "here"] == line.split()[:7]
    readers = json.loads(run("show", "qwen-vl-plus", "--json").stdout)["answered_by"][1:]
    assert [("reader", "missing"), ("small-reader", "here")] == [(one["engine"], one["presence"]) for one in readers]


def test_show_finds_a_model_by_its_alias(home: Path):
    shown = run("show", "qwen-plus-latest").stdout
    assert "qwen-plus" in shown
    assert "qwenbox pull qwen2.5-coder-1.5b-instruct-q4_k_m" in shown


def test_show_names_the_models_there_are_when_it_finds_none(home: Path):
    result = run("show", "nope")
    assert 1 == result.exit_code
    assert "qwen-turbo, qwen-plus, qwen-max" in result.stderr


def test_add_reads_context_and_abilities_from_the_file(home: Path, tmp_path: Path):
    file = gguf_file(tmp_path / "own.gguf", 4_096, TEMPLATE)
    result = run("add", "own", "--gguf", str(file), "--alias", "own-latest")
    assert 0 == result.exit_code, result.output
    shown = json.loads(run("show", "own-latest", "--json").stdout)
    assert (4_096, True, "here", str(file)) == (
        shown["card"]["context_tokens"],
        shown["is_own"],
        shown["answered_by"][0]["state"],
        shown["answered_by"][0]["path"],
    )
    assert {"chat", "completion", "json", "logprobs", "tools", "thinking"} == set(shown["card"]["capabilities"])


def test_add_stops_at_the_usual_context_unless_told(home: Path, tmp_path: Path):
    file = gguf_file(tmp_path / "own.gguf", 131_072)
    assert "32,768" in run("add", "one", "--gguf", str(file)).stdout
    assert "65,536" in run("add", "two", "--gguf", str(file), "--context", "65536").stdout


def test_add_of_an_address_fetches_nothing(home: Path):
    result = run("add", "far", "--url", "http://127.0.0.1:9/far.gguf")
    assert (0, True) == (result.exit_code, "qwenbox pull far" in result.stdout)
    assert "missing" == json.loads(run("show", "far", "--json").stdout)["answered_by"][0]["presence"]


def test_add_checks_the_hash_before_it_believes_the_file(home: Path, tmp_path: Path):
    file = gguf_file(tmp_path / "own.gguf", 4_096)
    wrong = run("add", "own", "--gguf", str(file), "--sha256", sha256(b"other"))
    assert (1, True) == (wrong.exit_code, "not the file" in wrong.stderr)
    right = run("add", "own", "--gguf", str(file), "--sha256", sha256(file.read_bytes()).upper())
    assert 0 == right.exit_code, right.output
    assert "here" == json.loads(run("show", "own", "--json").stdout)["answered_by"][0]["state"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["qwen-turbo", "--url", "http://x/y.gguf"], "is taken"),
        (["own", "--url", "http://x/y.gguf", "--alias", "qwen-plus"], "is taken"),
        (["small", "--url", "http://x/y.gguf"], "is taken"),
        (["a/b", "--url", "http://x/y.gguf"], "letters, digits"),
        (["own"], "exactly one of"),
        (["own", "--url", "http://x/y.gguf", "--gguf", "y.gguf"], "exactly one of"),
        (["own", "--url", "ftp://x/y.gguf"], "begin with http"),
        (["own", "--url", "http://x/y.gguf", "--sha256", "12"], "64 lower-case hex"),
        (["own", "--gguf", "/nowhere/y.gguf"], "y.gguf"),
    ],
)
def test_add_refuses_what_makes_no_sense(home: Path, arguments: list[str], words: str):
    result = run("add", *arguments)
    assert 1 == result.exit_code
    assert words in result.stderr
    assert not (home / "models.toml").exists()


def test_add_refuses_a_file_that_is_no_gguf(home: Path, tmp_path: Path):
    (tmp_path / "own.gguf").write_bytes(blob(1_000)[::-1])
    result = run("add", "own", "--gguf", str(tmp_path / "own.gguf"))
    assert (1, True) == (result.exit_code, "GGUF" in result.stderr)


def test_add_refuses_more_context_than_the_file_was_trained_for(home: Path, tmp_path: Path):
    result = run("add", "own", "--gguf", str(gguf_file(tmp_path / "own.gguf", 4_096)), "--context", "8192")
    assert (1, True) == (result.exit_code, "trained for 4,096" in result.stderr)


def test_remove_forgets_the_model_and_keeps_the_file(home: Path, tmp_path: Path):
    file = gguf_file(tmp_path / "own.gguf", 4_096)
    run("add", "own", "--gguf", str(file))
    assert 0 == run("remove", "own").exit_code
    assert (1, True) == (run("show", "own").exit_code, file.exists())


def test_remove_refuses_what_ships(home: Path):
    result = run("remove", "qwen-turbo")
    assert (1, True) == (result.exit_code, "none of yours" in result.stderr)
