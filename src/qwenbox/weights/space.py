"""This is where we look at the disk before we fill it."""

import shutil
from pathlib import Path

from qwenbox.terms.errors import ApiError, ErrorKind


def require_space(folder: Path, needed_bytes: int, margin_bytes: int) -> None:
    """Raises ApiError(ENGINE_FAILED) if `folder`'s disk cannot take `needed_bytes` and keep `margin_bytes` free."""
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needed_bytes + margin_bytes:
        raise ApiError(
            ErrorKind.ENGINE_FAILED,
            f"Not enough space: {megabytes(needed_bytes)} must fit into {folder} with {megabytes(margin_bytes)} to spare, and "
            f"{megabytes(free_bytes)} are free. Free some, or put QWENBOX_HOME on a larger disk.",
        )


def megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
