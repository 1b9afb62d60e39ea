"""This is where tests find a box's engine children."""

from pathlib import Path


def of(pid: int) -> list[int]:
    """Process ids of the engine children of a box, oldest first."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if parent == pid and b"qwenbox.children.llama" in command:
            found.append(int(entry.name))
    return sorted(found)
