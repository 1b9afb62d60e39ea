"""This is where tests find the processes of a box: its engine children, and its workers."""

from pathlib import Path


def of(pid: int) -> list[int]:
    """Process ids of the engine children of a box, oldest first."""
    return [child for child, command in _of(pid) if b"qwenbox.children.llama" in command]


def workers(pid: int) -> list[int]:
    """Process ids of the workers of a box, oldest first; none where it answers by itself."""
    return [child for child, command in _of(pid) if b"qwenbox.children" not in command]


def _of(pid: int) -> list[tuple[int, bytes]]:
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if int(parent) == pid and state != "Z":
            found.append((int(entry.name), command))
    return sorted(found)
