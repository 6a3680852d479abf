"""Cursors: where the next page of a list begins. Clients hand them back as they got them."""

from __future__ import annotations

import base64
from typing import Annotated

from fastapi import Query

from grampus.errors import InvalidInput, Problem

Cursor = Annotated[
    str | None, Query(max_length=200, description="`next` of the page before this one.")
]


def of_name(name: str) -> str:
    return _spell(f"n{name}")


def of_seq(seq: int) -> str:
    return _spell(f"s{seq}")


def read_name(cursor: str | None) -> str:
    """The name before the page; "" for no cursor. Raises InvalidInput for what is no cursor."""
    return "" if cursor is None else _read(cursor, "n")


def read_seq(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    text = _read(cursor, "s")
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise _no_cursor(cursor)
    return int(text)


def of_moment(revision: int, at: int) -> str:
    return _spell(f"m{revision}.{at}")


def read_moment(cursor: str | None) -> tuple[int, int] | None:
    """(revision, wall ms) of the last line before the page."""
    if cursor is None:
        return None
    revision, _, at = _read(cursor, "m").partition(".")
    if not all(n.isascii() and n.isdecimal() and len(n) <= 18 for n in (revision, at)):
        raise _no_cursor(cursor)
    return int(revision), int(at)


def _spell(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _read(cursor: str, kind: str) -> str:
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        text = base64.b64decode(padded, altchars=b"-_", validate=True).decode()
    except ValueError:
        raise _no_cursor(cursor) from None
    if not text.startswith(kind) or len(text) == 1:
        raise _no_cursor(cursor)
    return text[1:]


def _no_cursor(cursor: str) -> InvalidInput:
    message = "this is no cursor of this list: give `next` of the page before, as it was"
    return InvalidInput([Problem(message, field="query.cursor", found=repr(cursor[:60]))])
