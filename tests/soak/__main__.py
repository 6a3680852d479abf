"""`python -m tests.soak --seed 1 --minutes 2`: kill -9 of node and warden, again and again.

Waves of 200 tasks, shell and Python, some of which fail once, write down their lives (`flows`)
while the node process, its warden, or both are killed at moments that the seed chooses. At the end
every run has succeeded, every task has one accepted result, which is that of its last execution,
and what the tasks wrote says that nothing overlapped and that attempts went on where their warden
lived (`evidence`). Nothing is left running.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from contextlib import suppress
from pathlib import Path

from grampus.errors import GrampusError
from grampus.model.run import AttemptState, RunState
from grampus.sdk.client import Client
from tests.acceptance.node import Ground, until
from tests.soak.evidence import Findings, Kill, follow, latest, read
from tests.soak.flows import TASKS, WAVE, write

SLOTS = 8
#: What is killed, and how often of all.
VICTIMS = {"node": 5, "warden": 2, "both": 2}
#: Seconds between a node that is ready and the next kill.
GAP = (0.3, 4.0)
#: A wave is sent when at most so many runs are left of those before.
LOW = 8
#: For what is left when the killing is over, in seconds.
WORK_OFF = 240.0


def uptime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Soak:
    def __init__(self, folder: Path, seed: int) -> None:
        self.chance = random.Random(seed)
        self.ground = Ground(folder)
        self.place = folder / "place"
        self.place.mkdir()
        self.kills: list[Kill] = []
        self.runs: list[str] = []
        self.counts: Counter[str] = Counter()

    def play(self, seconds: float) -> None:
        self.node = self.ground.start(slots=SLOTS).ready()
        try:
            with self.ground.client() as client:
                for file in write(self.ground.folder, self.place):
                    client.apply(file)
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                self.submit()
                time.sleep(self.chance.uniform(*GAP))
                self.kill()
            with self.ground.client() as client:
                self.check(client)
            self.node.stop()
            self.node.kill()
            until(lambda: not self.ground.processes(), 20)
        finally:
            self.node.kill()
            for pid in self.ground.processes():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def submit(self) -> None:
        """Another wave, when the one before is nearly done."""
        with self.ground.client() as client:
            left = sum(len(list(client.runs(state=state))) for state in ("QUEUED", "RUNNING"))
            if left > LOW:
                return
            items = [{"workflow": name} for name, count in WAVE.items() for _ in range(count)]
            self.chance.shuffle(items)
            answers = client.submit_many(items)
        problems = [answer.problem for answer in answers if answer.problem]
        assert not problems, problems
        self.runs += [answer.id for answer in answers]

    def kill(self) -> None:
        (what,) = self.chance.choices(list(VICTIMS), list(VICTIMS.values()))
        wardens = self.wardens()
        victims = {
            "node": [self.node.pid],
            "warden": wardens,
            "both": [*wardens, self.node.pid],
        }[what]
        if self.chance.random() < 0.5:
            victims.reverse()
        if what == "warden" and not wardens:
            self.counts["no warden to kill"] += 1
            return
        at = ready = uptime()
        for pid in victims:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if what != "warden":
            self.node.kill()
            self.node = self.ground.start(slots=SLOTS).ready()
            ready = uptime()
        self.counts[f"kills of {what}"] += 1
        self.kills.append(Kill(what, at, ready))

    def wardens(self) -> list[int]:
        """Without their shims. One that outlived its node is nobody's child."""
        found = set(self.ground.wardens())
        roots = []
        for pid in found:
            with suppress(OSError):
                stat = Path(f"/proc/{pid}/stat").read_text()
                if int(stat.rpartition(")")[2].split()[1]) not in found:
                    roots.append(pid)
        return roots

    # -- afterwards -----------------------------------------------------------------------------

    def check(self, client: Client) -> None:
        end = time.monotonic() + WORK_OFF
        for id in self.runs:
            run = client.wait(id, timeout=max(1.0, end - time.monotonic()))
            assert run.state is RunState.SUCCEEDED, f"run {id} {run.state}: {run.reason}"
        found = read((self.place / "lines").read_text())
        follow(found, self.kills)
        self.accepted(client, found)
        self.counts["runs"] = len(self.runs)
        self.counts["executions"] = len(found.executions)
        self.counts["executions that went on over a new node"] = found.went_on
        self.counts["kills of a node that executions went on over"] = found.kills_survived
        self.counts["executions that ended while there was no node"] = found.ended_alone
        assert not found.problems, "\n".join(found.problems)
        assert found.went_on or not self.counts["kills of node"], "nothing went on"

    def accepted(self, client: Client, found: Findings) -> None:
        """One result for each task, and it is that of its last execution."""
        last = latest(found.executions.values())
        for id in self.runs:
            tasks = client.tasks(id)
            for task in tasks:
                self.counts["tasks"] += 1
                states = Counter(attempt.state for attempt in task.attempts)
                for state, count in states.items():
                    self.counts[f"attempts {state}"] += count
                story = f"{id}/{task.name}: {task.attempts}"
                assert states[AttemptState.SUCCEEDED] == 1, story
                assert states[AttemptState.FAILED] <= task.max_attempts - 1, story
                one = last[id, task.name]
                accepted = client.result(id, task.name)["execution"]
                assert accepted == one.name, f"{story}: {accepted} is not the last execution"
                assert one.whats[-1] == "end", story
        assert self.counts["tasks"] == len(self.runs) // sum(WAVE.values()) * sum(
            WAVE[name] * TASKS[name] for name in WAVE
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.soak")
    parser.add_argument("--seed", type=int, default=random.randrange(10_000))
    parser.add_argument("--minutes", type=float, default=2.0)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="grampus-soak-"))
    print(f"seed {options.seed}, {options.minutes:g} minutes of kills", flush=True)
    soak = Soak(folder, options.seed)
    try:
        soak.play(options.minutes * 60)
        end = "all is well"
        shutil.rmtree(folder)
    except (AssertionError, GrampusError, KeyError, TimeoutError, ValueError):
        traceback.print_exc()
        command = f"python -m tests.soak --seed {options.seed} --minutes {options.minutes:g}"
        end = f"failed; what is left of it is in {folder}; again: {command}"
    for what, count in sorted(soak.counts.items()):
        print(f"{count:6} {what}")
    print(end)
    sys.exit(end != "all is well")


if __name__ == "__main__":
    main()
