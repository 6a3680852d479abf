"""What an attempt needs before its process: a folder of its run, and room on the disk."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from grampus.model.run import AttemptState
from grampus.model.workflow import Shell, Task
from grampus.protocol import Invocation
from grampus.tasks.launch import Place
from grampus.worker import chores as chores_module
from grampus.worker.chores import Chores, Held
from grampus.worker.core.events import PrepareFailed
from grampus.worker.logs import Logs


def held(n: int, run: str) -> Held:
    work = Invocation(
        run=run, workflow="w", version=1, task="a", attempt=1, fencing_token=1,
        spec=msgspec.json.encode(Task("a", Shell("true"))), params=b"{}", tick=0, tz="UTC",
        bundle=None, inputs={},
    )  # fmt: skip
    return Held(n, work, f"{run}/a.1", True)


class NoBlobs:
    def path(self, hash: str) -> str:
        return hash


def made(folder: Path) -> Chores:
    nobody: Any = None
    exchange: Any = NoBlobs()
    place = Place({}, str(folder / "scratch"))
    return Chores(place, nobody, exchange, nobody)


def test_each_run_works_in_a_folder_of_its_own_that_goes_with_it(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    one, again, other = held(1, "aaaaaaaaaaaa"), held(2, "aaaaaaaaaaaa"), held(3, "bbbbbbbbbbbb")
    for each in (one, again, other):
        assert made(tmp_path).prepare_now(each) is True
    folders = [each.process.cwd for each in (one, again, other) if each.process is not None]
    assert folders == [str(scratch / name) for name in ("a" * 12, "a" * 12, "b" * 12)]

    (scratch / ("a" * 12) / "left").write_text("by a task")
    Logs(tmp_path / "attempts", scratch=scratch).forget(["a" * 12])
    assert [path.name for path in scratch.iterdir()] == ["b" * 12]


def test_what_the_machine_cannot_do_now_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chores_module, "WAITS", (0,))
    chores, each = made(tmp_path), held(1, "aaaaaaaaaaaa")

    async def scenario() -> bool | PrepareFailed:
        assert chores.prepare_now(each) is False  # where folders are made is nothing yet
        waiting = asyncio.create_task(chores.prepare(each))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not waiting.done()
        (tmp_path / "scratch").mkdir()
        async with asyncio.timeout(10):
            return await waiting

    assert asyncio.run(scenario()) is True
    assert each.process is not None


def test_in_the_end_it_is_given_back_with_the_reason_and_the_worker_is_in_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chores_module, "WAITS", (0,))
    monkeypatch.setattr(chores_module, "FETCH_TIMEOUT", 0.001)
    chores = made(tmp_path)
    assert chores.trouble() == ""
    failed = asyncio.run(chores.prepare(held(1, "aaaaaaaaaaaa")))
    assert isinstance(failed, PrepareFailed)
    # Nothing of it has run: whether here or elsewhere, it is tried again at nobody's expense.
    assert failed.state is AttemptState.CANCELLED
    assert "No such file" in failed.error
    assert "No such file" in chores.trouble()
    (tmp_path / "scratch").mkdir()
    assert chores.trouble() == ""
    assert list((tmp_path / "scratch").iterdir()) == []
