"""The files of imports and exports: standard input and output, gzip, atomic replacement."""

import gzip
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase, BufferedWriter
from typing import Protocol, Self

STANDARD_STREAM = "-"  # the name that means stdin or stdout
GZIP_MAGIC = b"\x1f\x8b"


class UnreadableFile(Exception):
    """An input file cannot be opened. The message names the file and the reason."""


class Writable(Protocol):
    def write(self, data: bytes, /) -> int: ...


class InputFile:
    """An input file, or standard input for `-`. Decompresses gzip, detected from the suffix `.gz` or the first bytes.

    `size` is the number of bytes in the file, or None if it is unknown. Raises UnreadableFile.
    """

    def __init__(self, name: str) -> None:
        is_stdin = name == STANDARD_STREAM
        self.name = "stdin" if is_stdin else name
        try:
            self._file = open(0 if is_stdin else name, "rb", closefd=not is_stdin)  # noqa: SIM115  # __exit__ closes it
            status = os.fstat(self._file.fileno())
            is_gzip = name.endswith(".gz") or self._file.peek(len(GZIP_MAGIC))[: len(GZIP_MAGIC)] == GZIP_MAGIC
        except OSError as error:
            raise UnreadableFile(f"cannot read {error.filename or self.name}: {error.strerror}") from error
        self.size = status.st_size if stat.S_ISREG(status.st_mode) else None
        self.content: BufferedIOBase = gzip.GzipFile(fileobj=self._file) if is_gzip else self._file

    @property
    def bytes_read(self) -> int:
        """The number of bytes that were read from the file so far, or 0 if its size is unknown."""
        return self._file.tell() if self.size is not None else 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


@contextmanager
def output_file(name: str) -> Iterator[Writable]:
    """Open a new file for writing, or standard output for `-`. Compresses the file if its name ends in `.gz`.

    The file is written under a temporary name. At the end of the block, it is flushed to disk. Then it gets its final
    name and replaces an older file of that name. After an exception, the older file remains. Only the owner can read
    the file. Raises OSError.
    """
    if name == STANDARD_STREAM:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = os.path.realpath(name)
    is_special = os.path.exists(path) and not os.path.isfile(path)  # pipes and devices cannot be replaced
    with open(path, "wb") if is_special else _atomic_replacement(path) as file:
        if name.endswith(".gz"):
            # Leave out the name and the time, so that the same threads give the same bytes.
            with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file, mtime=0) as compressed:
                yield compressed
        else:
            yield file


@contextmanager
def _atomic_replacement(path: str) -> Iterator[BufferedWriter]:
    directory, name = os.path.split(path)
    descriptor, temporary = tempfile.mkstemp(dir=directory, prefix=f".{name[:100]}.")  # creates the file with mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
