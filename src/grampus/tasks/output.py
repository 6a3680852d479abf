"""The file `$GRAMPUS_OUTPUT`, by which an attempt hands its result to the worker.

A shell task writes `key=value` lines or one JSON object. The runner writes one header line and a
body: `\\0grampus json`, `\\0grampus pickle`, or `\\0grampus error` with why it failed. No value
is decoded here but a shell task's, and nothing is unpickled.
"""

from __future__ import annotations

import json
import os
import re
from typing import Any, BinaryIO, Literal

import msgspec
from msgspec import Struct

from grampus.model.run import BLOB_LIMIT
from grampus.tasks.failure import TaskFailure, class_names

#: What a shell task may write, in bytes.
SHELL_LIMIT = 1024 * 1024
ERROR_LIMIT = 4_000
_MAGIC = b"\0grampus "
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,127}\Z")
_HEADER_LIMIT = 32


class Found(Struct, frozen=True):
    """A value in an output file: its encoded bytes start at `offset`, or are `data`."""

    encoding: Literal["json", "pickle"]
    size: int
    offset: int = 0
    data: bytes | None = None


class FoundError(Struct, frozen=True):
    """Why the attempt failed, as its runner says."""

    error: str
    exception: tuple[str, ...] = ()


class Malformed(Exception):
    """The file cannot be used; the text says why, and in which line."""


def write_value(path: str, encoding: str, data: bytes) -> None:
    """Called by the runner. Raises TaskFailure when the value is larger than a blob may be."""
    if len(data) > BLOB_LIMIT:
        raise TaskFailure(
            f"the result has {len(data):,} bytes, more than {BLOB_LIMIT:,}; write it to a file or "
            "a database and return where it is"
        )
    _write(path, _MAGIC + encoding.encode() + b"\n", data)


def write_error(path: str, error: str, exception: tuple[str, ...]) -> None:
    """Called by the runner."""
    body = {"error": error[:ERROR_LIMIT], "exception": [name[:200] for name in exception[:32]]}
    _write(path, _MAGIC + b"error\n", json.dumps(body).encode())


def _write(path: str, *parts: bytes) -> None:
    # An empty file is not truncated: ext4 would wait for the disk when it is closed.
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(fd).st_size:
            os.ftruncate(fd, 0)
        left = memoryview(b"".join(parts))
        while left:
            left = left[os.write(fd, left) :]
    finally:
        os.close(fd)


def find(file: BinaryIO, shell: bool) -> Found | FoundError | None:
    """What an attempt left in its output file; None is nothing. Raises Malformed.

    `shell`: it is a shell task's, which may write lines but no pickle.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(_HEADER_LIMIT)
    if not head.startswith(_MAGIC):
        if not shell:
            raise Malformed("the task has overwritten $GRAMPUS_OUTPUT, which holds its result")
        if size > SHELL_LIMIT:
            raise Malformed(f"$GRAMPUS_OUTPUT has {size:,} bytes; it may have {SHELL_LIMIT:,}")
        return _shell(head + file.read())
    kind, newline, _ = head[len(_MAGIC) :].partition(b"\n")
    offset = len(_MAGIC) + len(kind) + len(newline)
    if kind == b"error" and newline:
        file.seek(offset)
        return _error(file.read(64 * 1024))
    if shell or kind not in (b"json", b"pickle") or not newline:
        raise Malformed("$GRAMPUS_OUTPUT starts with a header that is not for tasks to write")
    if size - offset > BLOB_LIMIT:
        raise Malformed(f"the result has {size - offset:,} bytes, more than {BLOB_LIMIT:,}")
    return Found("json" if kind == b"json" else "pickle", size - offset, offset)


def _error(body: bytes) -> FoundError:
    try:
        return msgspec.json.decode(body, type=FoundError)
    except msgspec.DecodeError as error:
        raise Malformed(f"the runner's error cannot be read: {error}") from None


def _shell(data: bytes) -> Found | None:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Malformed(f"$GRAMPUS_OUTPUT, line {line}: not UTF-8") from None
    if not text.strip():
        return None
    encoded = _object(text.strip()) if text.lstrip().startswith("{") else _lines(text)
    return Found("json", len(encoded), data=encoded)


def _object(text: str) -> bytes:
    data = text.encode()
    try:
        json.loads(text, parse_constant=_no_constant)
        msgspec.json.decode(data, type=dict[str, Any])
    except json.JSONDecodeError as error:
        raise Malformed(
            f"$GRAMPUS_OUTPUT, line {error.lineno}: not one JSON object: {error.msg}"
        ) from None
    except (ValueError, RecursionError) as error:
        raise Malformed(f"$GRAMPUS_OUTPUT is not one JSON object: {error}") from None
    return data


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _lines(text: str) -> bytes:
    values: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        key, equals, value = line.rstrip("\r").partition("=")
        if not equals or not _KEY.match(key.strip()):
            raise Malformed(
                f"$GRAMPUS_OUTPUT, line {number}: {line[:80]!r} is no key=value line, nor is the "
                "file one JSON object"
            )
        values[key.strip()] = value
    return json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode()


def describe(error: TaskFailure) -> tuple[str, tuple[str, ...]]:
    """Text and class names of a failure, as `write_error` takes them."""
    return str(error), error.names or class_names(error)
