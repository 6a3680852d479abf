"""Reads that are cut off because they take too long."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from grampus.errors import Overloaded
from grampus.ledger import Ledger
from grampus.runs import reads as module
from grampus.runs.queries import Queries
from grampus.runs.reads import TRIES, Reads

#: Longer than SQLite computes between two looks at the time.
SLOW = """WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000)
SELECT i FROM n"""


def test_a_clerk_begins_again_what_was_cut_off_and_a_person_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Ledger(tmp_path / "ledger.db").close()
    reads = Reads(tmp_path / "ledger.db")
    asked = 0

    def slow(queries: Queries, limit: int, after: str) -> list[object]:
        nonlocal asked
        asked += 1
        if asked == TRIES:
            monkeypatch.setattr(module, "LONGEST", 60.0)
            queries._db.hurry(60.0)
        queries._db.query(SLOW)
        return []

    monkeypatch.setattr(Queries, "schedules", slow)
    monkeypatch.setattr(Queries, "workflows", slow)
    monkeypatch.setattr(module, "LONGEST", 0.0)
    try:
        assert asyncio.run(reads.schedules(10, "")) == []
        assert asked == TRIES
        monkeypatch.setattr(module, "LONGEST", 0.0)
        with pytest.raises(Overloaded):
            asyncio.run(reads.workflows(10, ""))
    finally:
        reads.close()
