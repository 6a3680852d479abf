"""A worker knows after a restart which history of the cluster it has seen last."""

from __future__ import annotations

from pathlib import Path

import pytest

from grampus.cluster.core.histories import SKIP
from grampus.errors import FolderError
from grampus.worker.histories import FILE, histories_of


def test_it_is_written_down_before_it_counts(tmp_path: Path) -> None:
    seen = histories_of(tmp_path)
    assert seen.goes_with("h1", 17)
    assert seen.goes_with("h2", SKIP)
    assert (tmp_path / FILE).stat().st_mode & 0o077 == 0
    again = histories_of(tmp_path)
    assert again.counts("h2")
    assert not again.goes_with("h1", 2**40)


def test_a_worker_that_cannot_write_it_down_does_not_go_there(tmp_path: Path) -> None:
    seen = histories_of(tmp_path / "gone")
    with pytest.raises(FolderError, match="cannot be written"):
        seen.goes_with("h1", 17)
    assert not seen.counts("h1")


def test_a_damaged_file_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("{")
    (tmp_path / FILE).chmod(0o600)
    with pytest.raises(FolderError, match=r"is damaged .* remove it"):
        histories_of(tmp_path)
