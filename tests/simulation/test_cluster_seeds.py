"""Whole clusters under faults, from seeds: a failing one prints the command that repeats it.

`make soak` plays others, for as many minutes as it was given.
"""

from __future__ import annotations

import pytest

pytest.importorskip("grampus_raft", reason="the binding of Raft is not built")

from grampus.testing.cluster import MODULE, run_seed
from grampus.testing.cluster_faults import FAULT_KINDS
from tests.simulation.play import Seeds, soaks

SEEDS = Seeds(run_seed, MODULE)
BATCH = 8


@pytest.mark.parametrize("first", range(101, 165, BATCH))
def test_a_cluster_agrees_and_answers_whatever_fails(first: int) -> None:
    SEEDS.end_well(range(first, first + BATCH))


def test_a_seed_is_one_history_of_a_cluster() -> None:
    SEEDS.is_one_history(7)


def test_the_seeds_of_clusters_reach_what_they_are_for() -> None:
    # The last ones for what is rare.
    seen = SEEDS.end_well([*range(1, 22), 29, 31, 33])
    wanted = [f"fault {kind}" for kind in FAULT_KINDS]
    wanted += ["answered", "read", "unknown", "nothing happened", "elections", "disk lost"]
    wanted += ["grow done", "promote done", "shrink done", "replace done", "transfer done"]
    wanted += ["snapshot laid down", "power cut in a call", "stopped by a full disk"]
    wanted += ["disk hangs"]
    wanted += ["locks taken", "numbered writes", "session silent", "sessions lost", "changes told"]
    wanted += ["compacted", "raised", "marked", "mark: VersionMismatch", "fell back"]
    assert [what for what in wanted if not seen[what]] == []
    assert seen["answered"] > 10 * seen["unknown"]


@soaks
def test_many_other_seeds_of_clusters() -> None:
    SEEDS.soak()
