"""How a caller names things, checked before a request is made of it."""

from __future__ import annotations

import re
from urllib.parse import quote

from grampus.errors import InvalidInput, NotFound, Problem, UsageError
from grampus.ids import KEY_LIMIT

SHORTEST_PREFIX = 4
_ID = re.compile(r"[a-z2-7]{1,12}\Z")


def run_segment(run: str) -> str:
    """`run` as a segment of a path. Raises NotFound for what no run can be called."""
    if run != "last" and not _ID.match(run):
        raise NotFound(f"there is no run {run!r}: ids are 12 characters of a-z and 2-7, or `last`")
    if len(run) < SHORTEST_PREFIX:
        raise UsageError(f"{run!r} is too short: {SHORTEST_PREFIX} characters of an id at least")
    return run


def segment(part: str) -> str:
    """One segment of a path; "" becomes what cannot exist instead of another route."""
    return quote(part, safe="", errors="replace") if part not in ("", ".", "..") else "%20"


def idempotency_key(key: str) -> str:
    """Raises InvalidInput for what cannot be in a header."""
    if 1 <= len(key) <= KEY_LIMIT and key.isascii() and key.isprintable() and key == key.strip():
        return key
    allowed = f"1 to {KEY_LIMIT} printable ASCII characters, no space at the ends"
    raise InvalidInput(
        [Problem("the key cannot be this", field="key", found=repr(key), allowed=allowed)]
    )
