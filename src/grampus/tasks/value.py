"""What tasks hand on, as bytes and back.

Rule: JSON where decoding gives back an equal value, types included; pickle for the rest. A tuple
is no list and True is no 1, so that they are pickled. Only the process of a task may call
`decode` with pickle.
"""

from __future__ import annotations

import json
import math
import pickle
from typing import Any, Literal

from grampus.tasks.failure import TaskFailure, one_line

Encoding = Literal["json", "pickle"]
_TO_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

#: Nested deeper than this is pickled: readers of JSON have limits of their own.
DEPTH_LIMIT = 100
_INT_RANGE = range(-(2**63), 2**64)


def encode(value: Any) -> tuple[Encoding, bytes]:
    """`value` as bytes. Raises TaskFailure when it can be neither JSON nor pickled."""
    if value is None:
        return "json", b"null"
    if is_json(value):
        return "json", _TO_JSON(value).encode()
    try:
        return "pickle", pickle.dumps(value, protocol=5)
    except Exception as error:
        kind = type(value).__qualname__
        raise TaskFailure(
            f"the result, a {kind}, cannot be handed on: it is no JSON value and cannot be pickled "
            f"({one_line(error)}); return plain data, or write a file and return its path"
        ) from error


def decode(encoding: Encoding, data: bytes) -> Any:
    """The reverse of `encode`. Unpickling runs code: only for values of the task's own workflow."""
    return json.loads(data) if encoding == "json" else pickle.loads(data)


def is_json(value: Any) -> bool:
    """Whether JSON gives `value` back as it is, types included."""
    todo = [(value, 0)]
    while todo:
        item, depth = todo.pop()
        kind = type(item)
        if kind is str:
            if not _is_text(item):
                return False
        elif kind is float:
            if not math.isfinite(item):
                return False
        elif kind is int:
            if item not in _INT_RANGE:
                return False
        elif kind is dict or kind is list:
            if depth >= DEPTH_LIMIT:
                return False
            if kind is dict:
                if not all(type(key) is str and _is_text(key) for key in item):
                    return False
                todo.extend((part, depth + 1) for part in item.values())
            else:
                todo.extend((part, depth + 1) for part in item)
        elif kind is not bool and item is not None:
            return False
    return True


def _is_text(text: str) -> bool:
    """Not with lone surrogates: they are no UTF-8."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
