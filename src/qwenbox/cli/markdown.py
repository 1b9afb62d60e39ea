"""This is where growing Markdown is cut into blocks that cannot change any more and the one that still may."""


def split_finished(text: str) -> tuple[str, str]:
    """Everything before the last blank line outside a code fence, and the rest.

    A blank line inside a fence ends nothing; an indented line after one may still belong to the block before it.
    """
    fence, cut, at = "", 0, 0
    for line in text.splitlines(keepends=True):
        at += len(line)
        mark = line.strip()
        if fence:
            if mark.startswith(fence) and not mark.strip(fence[0]):
                fence = ""
        elif mark.startswith(("```", "~~~")):
            fence = mark[: len(mark) - len(mark.lstrip(mark[0]))]
        elif not mark and line.endswith("\n") and not text[at:].startswith((" ", "\t")) and text[at:]:
            cut = at
    return text[:cut].strip("\n"), text[cut:]
