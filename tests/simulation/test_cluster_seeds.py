"""Whole clusters under faults, from seeds: a failing one prints the command that repeats it.

`make soak` plays others, for as many minutes as it was given.
"""

from __future__ import annotations

import os
import time
from collections import Counter

import pytest

pytest.importorskip("grampus_raft", reason="the binding of Raft is not built")

from grampus.testing.cluster import MODULE, run_seed
from grampus.testing.cluster_faults import FAULT_KINDS
from grampus.testing.seeds import tell

BATCH = 8


@pytest.mark.parametrize("first", range(101, 165, BATCH))
def test_a_cluster_agrees_and_answers_whatever_fails(first: int) -> None:
    for seed in range(first, first + BATCH):
        outcome = run_seed(seed)
        assert not outcome.error, "\n" + tell(outcome, MODULE)


def test_a_seed_is_one_history_of_a_cluster() -> None:
    one, other = run_seed(7), run_seed(7)
    assert one.trace == other.trace
    assert one.seen == other.seen
    assert len(one.trace) > 20


def test_the_seeds_of_clusters_reach_what_they_are_for() -> None:
    seen: Counter[str] = Counter()
    for seed in range(1, 25):
        outcome = run_seed(seed)
        assert not outcome.error, "\n" + tell(outcome, MODULE)
        seen += outcome.seen
    wanted = [f"fault {kind}" for kind in FAULT_KINDS]
    wanted += ["answered", "read", "unknown", "nothing happened", "elections", "disk lost"]
    wanted += ["grow done", "promote done", "shrink done", "replace done", "transfer done"]
    wanted += ["snapshot laid down", "power cut in a call", "stopped by a full disk"]
    wanted += ["locks taken", "numbered writes", "session silent", "sessions lost", "changes told"]
    wanted += ["compacted", "raised", "marked", "mark: Refused", "fell back"]
    assert [what for what in wanted if not seen[what]] == []
    assert seen["answered"] > 10 * seen["unknown"]


@pytest.mark.skipif("SOAK" not in os.environ, reason="make soak plays it")
def test_many_other_seeds_of_clusters() -> None:
    until = time.monotonic() + 60 * int(os.environ["SOAK"])
    seed = time.time_ns() // 1_000_000_000 * 1_000
    while time.monotonic() < until:
        outcome = run_seed(seed)
        assert not outcome.error, "\n" + tell(outcome, MODULE)
        seed += 1
