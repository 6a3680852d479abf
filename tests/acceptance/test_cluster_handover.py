"""A leader that goes in order: it is stopped, or removed, while clients write and tasks run.

The lead is another's before it goes, so nobody waits for an election, and nothing runs twice."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from grampus.errors import ServerUnreachable
from grampus.model.run import AttemptState, RunState
from tests.acceptance.cluster import Site, site
from tests.acceptance.node import until
from tests.acceptance.writers import Writers

pytestmark = [pytest.mark.raft, pytest.mark.timeout(300)]
#: Each task writes down that it has begun, and that it is over.
FLOW = """workflow: flow
defaults: {{lease: 30s}}
tasks:
  first: {{shell: "{line}"}}
  second: {{shell: "{line}", after: [first]}}
"""
LINE = (
    "echo begun $GRAMPUS_RUN $GRAMPUS_TASK $GRAMPUS_ATTEMPT >> {place}; sleep 0.2;"
    " echo over $GRAMPUS_RUN $GRAMPUS_TASK $GRAMPUS_ATTEMPT >> {place}"
)


class Work:
    """Runs that begin one after the other, until it is over."""

    def __init__(self, ground: Site) -> None:
        self._ground = ground
        self._place = ground.folder / "lines"
        self._place.touch()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._failure: BaseException | None = None
        self.runs: list[str] = []
        line = LINE.format(place=self._place)
        with ground.client() as client:
            client.apply(ground.write("flow.yaml", FLOW.format(line=line)))

    def __enter__(self) -> Work:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(30)
        assert not self._thread.is_alive(), "a start hangs"

    def _run(self) -> None:
        try:
            with self._ground.client(timeout=3.0) as client:
                while not self._over.wait(0.05):
                    try:
                        self.runs.append(client.submit("flow").id)
                    except ServerUnreachable:
                        continue
        except BaseException as failure:
            self._failure = failure

    def check(self) -> None:
        """Each run that was acknowledged has ended well, and each of its tasks ran once."""
        assert self._failure is None, repr(self._failure)
        assert len(self.runs) > 10
        with self._ground.client() as client:
            for run in self.runs:
                assert client.wait(run, timeout=60).state is RunState.SUCCEEDED
            lines = Counter(self._place.read_text().splitlines())
            for run in self.runs:
                for task in client.tasks(run):
                    assert [a.state for a in task.attempts] == [AttemptState.SUCCEEDED]
                    for word in ("begun", "over"):
                        assert lines[f"{word} {run} {task.name} 1"] == 1
        assert set(lines.values()) == {1}
        assert not [line for line in lines if not line.endswith(" 1")], "an attempt ran again"


@contextmanager
def busy(folder: Path) -> Iterator[tuple[Site, Writers, Work]]:
    """Three servers and two workers; writes and runs go on."""
    with site(folder) as ground:
        ground.grow()
        for name in ("w1", "w2"):
            ground.worker(name)
        work, written = Work(ground), Writers(lambda: ground.client(timeout=3.0))
        with work, written:
            until(lambda: len(written.times) > 50 and len(work.runs) > 5)
            yield ground, written, work
            # It goes on.
            count, runs = len(written.times) + 50, len(work.runs) + 5
            until(lambda: len(written.times) > count and len(work.runs) > runs)
        work.check()
        for name in ground.servers:
            if ground.servers[name].process.poll() is None:
                with ground.client(servers=name) as client:
                    assert not written.lost(client)
            assert "Traceback" not in ground.servers[name].said()


def test_a_leader_that_is_stopped_gives_the_lead_away_before_it_goes(tmp_path: Path) -> None:
    with busy(tmp_path) as (ground, written, _):
        for _ in range(4):
            old = ground.leader()
            begun = time.monotonic()
            process = ground.servers[old].process
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
            gone = time.monotonic()
            with ground.client(servers=ground.others(old)) as client:
                found = client.cluster()
                asked = time.monotonic()
            assert found.leader not in (None, old)
            assert found.led / 1000 > asked - gone, "nobody led when it went"
            until(lambda begun=begun: any(at > begun + 2.0 for at in written.times))
            gap = written.gap(begun)
            assert gap < 2.0, f"nothing was written for {gap:.2f} s"
            ground.launch(old).ready()
            ground.settled(3)


def test_a_leader_is_removed_while_writes_and_runs_go_on(tmp_path: Path) -> None:
    with busy(tmp_path) as (ground, written, _):
        old = ground.leader()
        begun = time.monotonic()
        done = ground.cli(
            "cluster", "remove", old, "--yes", "--server", f"http://{ground.address(old)}",
            "--token-file", str(ground.folder_of(old) / "token"),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        code, said = ground.servers[old].ended()
        assert code == 4, said
        assert "removed" in said.splitlines()[-1]
        until(lambda: any(at > begun + 3.0 for at in written.times))
        gap = written.gap(begun)
        assert gap < 2.0, f"nothing was written for {gap:.2f} s"
        found = ground.settled(2)
        assert old not in {member.name for member in found.members}
