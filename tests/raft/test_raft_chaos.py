"""Groups under random faults; a seed that fails is repeated by `World(seed)`."""

from __future__ import annotations

import pytest

from tests.raft.chaos import Disk, World


@pytest.mark.parametrize("seed", range(40))
def test_nothing_is_lost_diverges_or_goes_back(seed: int) -> None:
    world = World(seed)
    assert world.acknowledged > 50
    assert world.crashes


def test_a_seed_repeats_exactly() -> None:
    worlds = [World(7, ticks=100) for _ in range(2)]
    assert worlds[0].digest.digest() == worlds[1].digest.digest()


def test_the_faults_and_changes_happen() -> None:
    worlds = [World(seed) for seed in range(100, 105)]
    assert sum(w.changes for w in worlds) > 10
    assert sum(w.reads for w in worlds) > 100
    assert sum(len(w.leaders) for w in worlds) > 10


def test_a_disk_that_forgets_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The teeth: a crash takes entries with it that were said to be durable."""
    lose = Disk.lose_unsynced

    def forget(disk: Disk, applied: int) -> None:
        lose(disk, applied)
        end = disk.hard_state[2] - disk.base[0]
        disk.entries = disk.entries[: max(end - 3, applied - disk.base[0])]
        term, vote, commit = disk.hard_state
        disk.hard_state = (term, vote, min(commit, disk.base[0] + len(disk.entries)))

    monkeypatch.setattr(Disk, "lose_unsynced", forget)
    failures = 0
    for seed in range(10):
        try:
            World(seed, ticks=200)
        except Exception:
            failures += 1
    assert failures > 3
