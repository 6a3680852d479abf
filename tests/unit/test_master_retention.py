"""What a look of the retention removes, and above all what it leaves."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from grampus.blobs import Blobs
from grampus.ledger import Ledger
from grampus.master import retention
from grampus.master.retention import YOUNG, Retention
from grampus.master.timekeeper import Timekeeper
from grampus.model.workflow import Shell, Task, Workflow
from grampus.runs.commands import (
    ApplyWorkflow,
    CancelRun,
    Command,
    DeleteWorkflow,
    SubmitRun,
    encode_command,
    pack_definition,
)
from grampus.runs.reads import Reads

NOW = 100 * YOUNG * 1000
KEEP = 3 * YOUNG * 1000


class Clock:
    def now(self) -> int:
        return NOW

    def ticks(self) -> int:
        return NOW

    def synchronised(self) -> bool:
        return False


class Site:
    """A ledger, its blobs, and a retention over both."""

    def __init__(self, folder: Path) -> None:
        self.ledger = Ledger(folder / "ledger.db")
        self.blobs = Blobs(folder / "blobs")
        self._path = folder / "ledger.db"
        self._index = 0
        self.settled = 0

    async def propose(self, *commands: Command) -> list[object]:
        self._index += 1
        return self.ledger.apply(self._index, 1, [encode_command(c) for c in commands])[0]

    async def settle(self) -> None:
        self.settled += 1

    def do(self, *commands: Command) -> list[Any]:
        return asyncio.run(self.propose(*commands))

    def old_blob(self, data: bytes) -> str:
        hash = self.blobs.put(data)
        os.utime(self.blobs.path(hash), (1, 1))
        return hash

    def apply(self, name: str, bundle: str) -> int:
        task = Task("a", Shell("true"))
        content = Workflow(name, (task,), bundle=bundle).content()
        ((version, _),) = self.do(ApplyWorkflow(1, name, pack_definition(content)))
        return int(version)

    def run(self, run: str, name: str, version: int, ended: int, at: int = 1) -> None:
        submit = SubmitRun(at, run, name, version, b"{}", "request", 0, 0)
        self.do(submit, CancelRun(ended, run, "a test"))

    def size_of(self, run: str) -> int:
        """Its events and task runs."""
        tables = ("event", "task_run")
        count = "SELECT count(*) FROM {} WHERE run = ?"
        return sum(self.ledger.database.value(count.format(table), (run,)) for table in tables)

    def look(self, rules: bool = True) -> int:
        async def once() -> int:
            reads = Reads(self._path)
            try:
                clock = Timekeeper(Clock())
                clean = Retention(
                    self,
                    reads,
                    self.blobs,
                    clock,
                    KEEP,
                    lambda: rules,  # type: ignore[arg-type]
                )
                return await clean.once()
            finally:
                reads.close()

        return asyncio.run(once())


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_a_bundle_stays_as_long_as_a_version_of_its_workflow_can_run(site: Site) -> None:
    first, second = site.old_blob(b"one"), site.old_blob(b"two")
    site.apply("w", first)
    site.apply("w", second)
    site.look()
    assert site.blobs.size(first) == site.blobs.size(second) == 3


def test_a_bundle_of_a_deleted_workflow_stays_while_it_has_runs(site: Site) -> None:
    bundle = site.old_blob(b"one")
    version = site.apply("w", bundle)
    site.run("aaaaaaaaaaaa", "w", version, ended=NOW - KEEP + 1)
    site.do(DeleteWorkflow(2, "w"))
    assert site.look() == 0
    assert site.blobs.size(bundle) == 3


def test_a_bundle_that_nothing_names_goes(site: Site) -> None:
    bundle = site.old_blob(b"one")
    version = site.apply("w", bundle)
    site.run("aaaaaaaaaaaa", "w", version, ended=NOW - KEEP - 1)
    site.do(DeleteWorkflow(2, "w"))
    assert site.look() == 1
    assert site.blobs.size(bundle) == -1


@pytest.mark.parametrize("renew", ["put", "append", "renew"])
def test_what_is_about_to_be_named_stays(site: Site, renew: str) -> None:
    """Its command may be on the way while the retention looks."""
    hash = site.old_blob(b"one")
    match renew:
        case "put":
            site.blobs.put(b"one")
        case "append":
            site.blobs.append(hash, 0, b"one", last=True)
        case "renew":
            assert site.blobs.renew(hash) == 3
    site.blobs.remove(hash, before=2)
    assert site.blobs.size(hash) == 3
    site.blobs.remove(hash, before=2**40)
    assert site.blobs.size(hash) == site.blobs.renew(hash) == -1


def test_a_server_that_does_not_rule_deletes_no_run_and_sweeps_its_own_blobs_later(
    site: Site,
) -> None:
    bundle = site.old_blob(b"one")
    version = site.apply("w", bundle)
    site.run("aaaaaaaaaaaa", "w", version, ended=NOW - KEEP - 1)
    unnamed, younger = site.old_blob(b"two"), site.old_blob(b"three")
    day_and_a_half = NOW / 1000 - 1.5 * YOUNG
    os.utime(site.blobs.path(younger), (day_and_a_half, day_and_a_half))
    assert site.look(rules=False) == 0
    assert site.settled == 1
    sizes = [site.blobs.size(hash) for hash in (bundle, unnamed, younger)]
    assert sizes == [3, -1, 5]
    assert site.look() == 1
    assert site.blobs.size(younger) == -1


def test_what_a_clock_that_was_behind_has_dated_back_is_not_old(tmp_path: Path) -> None:
    site = Site(tmp_path)
    version = site.apply("w", site.old_blob(b"w"))
    site.run("aaaaaaaaaaaa", "w", version, NOW - 2 * KEEP)
    site.run("bbbbbbbbbbbb", "w", version, NOW - 10, at=NOW - 100)
    site.run("cccccccccccc", "w", version, 5, at=2)  # In 1970.
    site.run("dddddddddddd", "w", version, NOW - 5, at=NOW - 50)
    assert site.look() == 1
    known = site.ledger.database.query("SELECT id FROM run ORDER BY seq")
    assert [run[0] for (run,) in known] == ["b", "c", "d"]


def test_large_runs_are_deleted_in_commands_that_are_not(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All other commands wait while one deletes."""
    monkeypatch.setattr(retention, "RUNS", 4)
    version = site.apply("w", site.old_blob(b"w"))
    for number in range(7):
        site.run("abcdefg"[number] * 12, "w", version, NOW - KEEP - 100 + number)
    size = site.size_of("a" * 12)
    monkeypatch.setattr(retention, "ROWS", 2 * size)
    asked: list[tuple[int, int]] = []
    propose = site.propose

    async def watched(*commands: Command) -> list[object]:
        answers = await propose(*commands)
        asked.extend((c.limit, len(a)) for c, a in zip(commands, answers, strict=True))  # type: ignore[attr-defined, arg-type]
        return answers

    monkeypatch.setattr(site, "propose", watched)
    assert site.look() == 7
    assert asked == [(2, 2), (2, 2), (2, 2), (1, 1)]
    # One that is too large by itself goes alone.
    monkeypatch.setattr(retention, "ROWS", size - 1)
    monkeypatch.setattr(site, "propose", propose)
    for number in range(3):
        site.run("hij"[number] * 12, "w", version, NOW - KEEP - 100 + number)
    asked.clear()
    monkeypatch.setattr(site, "propose", watched)
    assert site.look() == 3
    assert asked == [(1, 1), (1, 1), (1, 1)]
