"""Where each field was declared, so that a problem can say file and line."""

from __future__ import annotations

from collections.abc import Mapping

from grampus.errors import Problem

#: Field path, as in YAML → (file as the user named it, 1-based line). "" is the whole workflow.
Places = Mapping[str, tuple[str | None, int | None]]


def at_place(problem: Problem, places: Places) -> Problem:
    """`problem` with the file and line of its field, when it has none yet."""
    if problem.file is not None or problem.line is not None:
        return problem
    path = problem.field or ""
    while path and path not in places:
        cut = max(path.rfind("."), path.rfind("["))
        path = path[:cut] if cut > 0 else ""
    file, line = places.get(path, (None, None))
    return Problem(problem.message, file, line, problem.field, problem.found, problem.allowed)
