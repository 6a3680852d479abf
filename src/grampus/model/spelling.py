"""The nearest known name to one that is not known: half of a good error message."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str:
    """ " (did you mean `x`?)" with the most similar of `known`, or nothing when none is similar."""
    import difflib  # Late: who spells well does without.

    found = difflib.get_close_matches(name[:200], list(known), 1)
    return f" (did you mean `{found[0]}`?)" if found else ""
