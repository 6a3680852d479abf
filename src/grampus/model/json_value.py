"""What may be a param, an argument or a field: a JSON value that every reader decodes alike.

Rule: None, bool, text, finite float, int of 64 bits, list (or tuple), dict with text as keys.
"""

from __future__ import annotations

import math

#: Lists and objects inside each other.
DEPTH_LIMIT = 50
_INT_LIMIT = 2**63


def json_fault(value: object, where: str = "", depth: int = 0) -> str | None:
    """Why `value` is no JSON value, as `[0].name: a set is no JSON value`; None if it is one."""
    prefix = f"{where}: " if where else ""
    match value:
        case None | bool():
            return None
        case str():
            try:
                value.encode()
            except UnicodeEncodeError:
                return f"{prefix}the text is not valid Unicode"
            return None
        case int():
            return None if -_INT_LIMIT <= value < _INT_LIMIT else f"{prefix}past 64 bits"
        case float():
            return None if math.isfinite(value) else f"{prefix}{value} is not a finite number"
        case list() | tuple() | dict() if depth >= DEPTH_LIMIT:
            return f"{prefix}nested more than {DEPTH_LIMIT} deep"
        case list() | tuple():
            faults = (json_fault(v, f"{where}[{i}]", depth + 1) for i, v in enumerate(value))
            return next((fault for fault in faults if fault), None)
        case dict():
            for key, item in value.items():
                if not isinstance(key, str):
                    return f"{prefix}the key {key!r} is not text"
                fault = json_fault(key, where) or json_fault(item, f"{where}.{key}", depth + 1)
                if fault:
                    return fault
            return None
    return f"{prefix}a value of type {type(value).__name__} is no JSON value"
