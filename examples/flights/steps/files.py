"""How a step leaves a file: whole, or not at all.

Rule: a task may be tried twice, and a try may die half-way. So a file is written beside its place
and then moved there: the next reader finds the old one or the new one, never a part.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a path to write to; what is there at the end takes the place of `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The same ending, because pandas reads the compression from it.
    draft = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
