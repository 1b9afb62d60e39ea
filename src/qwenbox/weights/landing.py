"""This is where fetched bytes land: appended to one file, hashed in the same pass, renamed when they are right."""

import hashlib
import os
from pathlib import Path
from typing import BinaryIO

BLOCK_BYTES = 4 * 2**20


class Landing:
    """The growing `.part` file of one pull; every method blocks and belongs in a thread.

    What an earlier pull left is hashed on opening, so that `sha256` always speaks for all bytes in the file.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file: BinaryIO = path.open("r+b" if path.exists() else "w+b")
        self._hash = hashlib.sha256()
        self.size = 0
        while block := self._file.read(BLOCK_BYTES):
            self._hash.update(block)
            self.size += len(block)

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    @property
    def magic(self) -> bytes:
        """The first four bytes."""
        self._file.flush()
        self._file.seek(0)
        start = self._file.read(4)
        self._file.seek(self.size)
        return start

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._file.write(data)
        self._hash.update(data)
        self.size += len(data)

    def restart(self) -> None:
        """Forget what is there."""
        self._file.seek(0)
        self._file.truncate()
        self._hash = hashlib.sha256()
        self.size = 0

    def flush(self) -> None:
        """Hand all bytes to the kernel, so that `kill -9` loses none of them."""
        self._file.flush()

    def land(self, target: Path) -> None:
        """Give the file its final name; a power cut leaves either all of it there or the `.part` file."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self.path.replace(target)
        sync_folder(target.parent)

    def discard(self) -> None:
        self._file.close()
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        self._file.close()


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def hash_file(path: Path) -> str:
    """sha256 of the file, lower-case hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
