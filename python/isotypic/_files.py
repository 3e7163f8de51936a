"""Files that are whole or not there: each is written under another name and then renamed."""

from __future__ import annotations

import json
import os
import secrets
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO


@contextmanager
def written(path: str | Path) -> Iterator[BinaryIO]:
    """A file that takes its name when all of it is on disk; of several that write it at once, one is kept, whole.

    What is killed on the way leaves the old file, and a hidden one beside it.
    """
    target = Path(os.path.realpath(path))  # the file that a link leads to, not the link
    temporary = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def looks_like(path: str | Path) -> str:
    """What a file is, for a message about one that should be something else.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile(suffix=".npz") as file:
    ...     looks_like(file.name)
    'an empty file'
    """
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        head = file.read(512)
    if not head:
        return "an empty file"
    kinds = {
        b"PK": "a zip archive" if zipfile.is_zipfile(path) else "a zip archive without its end, cut off or damaged",
        b"\x89PNG": "a PNG picture",
        b"\x89HDF": "an HDF5 file",
        b"\x93NUMPY": "one array of numpy",
        b"\x80": "a pickle",
        b"\x1f\x8b": "a gzip archive",
    }
    kind = next((kind for start, kind in kinds.items() if head.startswith(start)), None)
    if kind is None:
        text = not set(head) - _TEXT
        kind = "JSON" if text and head.lstrip()[:1] in (b"{", b"[") else "text" if text else "of no format that is known here"
    return f"{kind}, {size:,} bytes"


_TEXT = set(range(32, 256)) | set(b"\t\r\n")


def read_json(path: str | Path, expected: str, remedy: str) -> Any:
    """The content of a JSON file. Raises ValueError that says what the file should be, what it is, and what can be done."""
    try:
        return json.loads(Path(path).read_text())
    except ValueError as error:
        raise ValueError(f"{path} must be {expected}, it is {looks_like(path)} ({error}); {remedy}") from None


def write_text(path: str | Path, text: str) -> None:
    with written(path) as file:
        file.write(text.encode())


def write_json(path: str | Path, value: Any, indent: int = 1, **settings: Any) -> None:
    write_text(path, json.dumps(value, indent=indent, **settings) + "\n")


def save_figure(figure: Any, path: str | Path, **settings: Any) -> None:
    """A figure of matplotlib, in the format that the name of the file says."""
    with written(path) as file:
        figure.savefig(file, format=Path(path).suffix.removeprefix("."), **settings)
