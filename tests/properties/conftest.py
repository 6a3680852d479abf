"""Folders of these tests are in memory where there is room: their power cuts are played, and what
a real disk takes for a sync would say nothing, but take minutes."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

MEMORY = Path("/dev/shm")
#: Bytes that have to be free there.
ROOM = 256 * 1024 * 1024


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    if not MEMORY.is_dir() or shutil.disk_usage(MEMORY).free < ROOM:
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="grampus-test-", dir=MEMORY) as folder:
        yield Path(folder)
