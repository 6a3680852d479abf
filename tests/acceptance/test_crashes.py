"""`kill -9` of the node, its warden and its shims, at random moments in the middle of work.

The rules that must hold, whatever dies when: what was answered is there, every run comes to its
end, no task succeeds twice, no two executions of one task overlap, nothing is left running.
"""

from __future__ import annotations

import os
import random
import re
import signal
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from grampus.errors import GrampusError
from grampus.model.run import AttemptState, RunState, TaskState
from grampus.sdk.client import Client
from tests.acceptance.node import Ground, Node, until

ROUNDS = 22
#: A task holds a lock as long as one of its processes lives: the kernel says if two overlap.
TASK = r"""
name=$GRAMPUS_RUN.$GRAMPUS_TASK
exec 9>>"$PLACE/$name.lock"
flock -n 9 || echo "overlap $name.$GRAMPUS_ATTEMPT" >> "$PLACE/lines"
echo "start $name $GRAMPUS_ATTEMPT $$" >> "$PLACE/lines"
for beat in $(seq BEATS); do
  sleep 0.03
  echo "beat $name $GRAMPUS_ATTEMPT $$" >> "$PLACE/lines"
done
HELPER
echo "n=$GRAMPUS_ATTEMPT" > "$GRAMPUS_OUTPUT"
echo "end $name $GRAMPUS_ATTEMPT $$" >> "$PLACE/lines"
"""


def workflow(place: Path) -> str:
    """Two rows of three, and a last one that has read them all."""
    lines = ["workflow: busy", f"defaults: {{max_lost: 1000, env: {{PLACE: '{place}'}}}}", "tasks:"]
    for row, beats in ((1, 2), (2, 5)):
        for column in range(3):
            # Some leave a process behind that does not want to go.
            helper = "(trap '' TERM; setsid sleep 30) &" if column == 0 else ""
            text = TASK.replace("BEATS", str(beats)).replace("HELPER", helper)
            lines += [f"  t{row}{column}:", "    shell: |"]
            lines += [f"      {line}" for line in text.splitlines()]
            if row == 2:
                lines += [f"    after: [t1{column}, t1{(column + 1) % 3}]"]
    outputs = " ".join(f"{{{{ tasks.t2{column}.output.n }}}}" for column in range(3))
    lines += ["  last: {shell: 'echo " + outputs + "'}"]
    return "\n".join(lines) + "\n"


class Submitter(threading.Thread):
    """A user who starts runs all the time, and remembers what was answered."""

    def __init__(self, ground: Ground, most: int) -> None:
        super().__init__()
        self.ground = ground
        self.most = most
        self.answered: list[str] = []
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.is_set() and len(self.answered) < self.most:
            with suppress(GrampusError), self.ground.client(timeout=2) as client:
                while not self.over.wait(0.12) and len(self.answered) < self.most:
                    self.answered.append(client.submit("busy").id)
            self.over.wait(0.05)


def hurt(chance: random.Random, node: Node) -> bool:
    """Kills something of a node; whether the node itself is to be started again."""
    what = chance.choice(("node", "node", "warden", "shim", "shims", "both", "all", "term"))
    warden, shims = node.warden(), node.shims()
    victims = {
        "node": [node.pid],
        "warden": [warden],
        "shim": shims[:1],
        "shims": shims,
        "both": [warden, node.pid],
        "all": [node.pid, *shims, warden],
        "term": [],
    }[what]
    if what == "both" and chance.random() < 0.5:
        victims.reverse()
    for pid in filter(None, victims):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    if what == "term":
        node.stop()
    return what in ("node", "both", "all", "term")


@pytest.mark.parametrize("seed", [int(os.environ.get("CRASH_SEED", "1"))])
def test_whatever_dies_every_run_comes_to_its_end(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    ground = Ground(tmp_path)
    place = tmp_path / "place"
    place.mkdir()
    file = ground.write("busy.yaml", workflow(place))
    node = ground.start().ready()
    submitter = Submitter(ground, most=30)
    try:
        with ground.client() as client:
            client.apply(file)
        submitter.start()
        for _ in range(ROUNDS):
            time.sleep(chance.uniform(0, 0.7))
            if hurt(chance, node):
                node.kill()
                node = ground.start().ready()
        submitter.over.set()
        submitter.join(20)
        with ground.client() as client:
            check_runs(client, submitter.answered)
        node.stop()
    finally:
        submitter.over.set()
        node.kill()
    until(lambda: not ground.processes(), 20)
    check_lines((place / "lines").read_text())


def check_runs(client: Client, answered: list[str]) -> None:
    assert len(answered) > 5
    known = {run.id for run in client.runs(limit=1000)}
    assert set(answered) <= known
    for id in known:
        run = client.wait(id, timeout=30)
        tasks = client.tasks(id)
        story = [(t.name, t.state, t.reason, t.attempts) for t in tasks]
        assert run.state is RunState.SUCCEEDED, story
        for task in tasks:
            assert task.state is TaskState.SUCCEEDED
            states = Counter(attempt.state for attempt in task.attempts)
            assert states[AttemptState.SUCCEEDED] == 1, story
            # Nobody charged a task for what happened to the machines.
            assert set(states) <= {
                AttemptState.SUCCEEDED, AttemptState.LOST, AttemptState.CANCELLED
            }, story  # fmt: skip
            assert task.attempts[-1].state is AttemptState.SUCCEEDED


def check_lines(text: str) -> None:
    """What the tasks themselves have seen."""
    assert "overlap" not in text
    last: dict[str, int] = {}
    for name, attempt in re.findall(r"^(?:start|beat|end) (\S+) (\d+) \d+$", text, re.M):
        assert int(attempt) >= last.get(name, 0), f"{name}: attempt {attempt} after {last[name]}"
        last[name] = int(attempt)
    starts = Counter(re.findall(r"^start (\S+ \d+) ", text, re.M))
    assert set(starts.values()) == {1}, "an attempt ran twice"
