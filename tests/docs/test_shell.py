"""`qwenbox …` as README and docs write it: the command is there, and so is every option."""

import re
import shlex

import pytest
import typer.main

from qwenbox.cli.main import app
from support.markdown import Page, pages

CLI = typer.main.get_command(app)
PAGES = {page.name: page for page in pages()}
SHELL = ("", "sh", "bash", "console")


def commands_of(page: Page) -> list[list[str]]:
    """Every use of qwenbox, as words: in blocks of shell and in running text."""
    lines = [line for block in page.blocks if block.language in SHELL for line in block.text.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"`([^`\n]*)`", page.prose)
    found: list[list[str]] = []
    for line in lines:
        if "qwenbox " not in line:
            continue
        bare = re.sub(r"[\[\]]|\s#\s.*$", " ", line)
        words = shlex.split(bare) if bare.count("'") % 2 == 0 else bare.split()
        starts = [at for at, word in enumerate(words) if word == "qwenbox" and (at == 0 or words[at - 1] not in ("pip", "install", "-m"))]
        ends = [*starts[1:], len(words)] if starts else []
        for start, end in zip(starts, ends, strict=True):
            rest = words[start + 1 : end]
            stop = next((at for at, word in enumerate(rest) if word in ("|", "&&", ";", ">", "||", "&")), len(rest))
            found.append(rest[:stop])
    return found


def wrong_in(words: list[str]) -> str:
    """What of these words the command line does not know; "" for nothing."""
    command = CLI
    left = [*words]
    # Typer brings its own click, so what is a group is told by what it has.
    while (commands := getattr(command, "commands", None)) and left and not left[0].startswith("-"):
        names = left.pop(0).split("|")  # `keys create|list`: each of them
        if unknown := [name for name in names if name not in commands and re.fullmatch(r"[a-z-]+", name)]:
            return f"no command {unknown[0]!r}"
        if names[0] not in commands:
            break
        command = commands[names[0]]
    known = {option for one in (command, CLI) for param in one.params for option in (*param.opts, *param.secondary_opts)} | {"--help"}
    wanted = [word.partition("=")[0] for word in left if re.match(r"--?[a-z]", word)]
    unknown = [option for option in wanted if option not in known]
    return f"no option {unknown[0]!r}" if unknown else ""


@pytest.mark.parametrize("name", PAGES)
def test_commands_of_a_page_exist(name: str) -> None:
    wrong = {" ".join(words): said for words in commands_of(PAGES[name]) if (said := wrong_in(words))}
    assert {} == wrong


def test_commands_are_found_and_judged() -> None:
    assert len([words for page in PAGES.values() for words in commands_of(page)]) > 60
    assert "no command 'sevre'" == wrong_in(["sevre", "--port", "1"])
    assert "no option '--prot'" == wrong_in(["serve", "--prot", "1"])
    assert "" == wrong_in(["keys", "create", "ci", "--budget", "20"])
