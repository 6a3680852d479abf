"""Workers in processes and folders of their own: what they share with the node goes over the wire,
and whoever dies, nothing runs twice."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from grampus.model.run import AttemptState, RunState
from grampus.sdk.client import Client
from tests.acceptance.crew import WorkerProcess, credential, node_at
from tests.acceptance.node import Ground, Node, until
from tests.ports import free_port

#: A bundle, a result that travels as a blob, and a worker that needs what another has made.
FLOW = """
from grampus import task, workflow


@task(group="left")
def make(size: int) -> str:
    return "x" * size


@task(group="right")
def measure(text: str) -> int:
    print("measured", len(text))
    return len(text)


@workflow
def wire(size: int = 300_000):
    measure(make(size))
"""
#: Each attempt says when it begins and when it ends.
STEPS = """
workflow: steps
params: {{place: {{type: str, default: "{place}"}}}}
defaults: {{max_lost: 100}}
tasks:
  a: {{shell: "{step}", group: left}}
  b: {{shell: "{step}", group: right}}
  c: {{shell: "{step}", group: left, after: [a, b]}}
  d: {{shell: "{step}", group: right, after: [a, b]}}
"""
STEP = (
    "echo start $GRAMPUS_TASK >> {{ params.place }}; sleep SECONDS;"
    " echo end $GRAMPUS_TASK >> {{ params.place }}"
)


class Crew:
    """A node, and a worker in each of two groups."""

    def __init__(self, folder: Path) -> None:
        self.ground = Ground(folder)
        self.port = free_port()
        self.place = folder / "lines"
        self.place.touch()
        self.node = node_at(self.ground, self.port).ready()
        self.workers = {
            name: self.worker(name, "--token-file", str(credential(self.ground)))
            for name in ("left", "right")
        }

    def worker(self, name: str, *options: str) -> WorkerProcess:
        return WorkerProcess(
            self.ground, name, self.port, "--group", name, "--slots", "2", *options
        )

    def client(self) -> Client:
        return self.ground.client()

    def again(self, name: str) -> None:
        """It has joined before: it needs no token."""
        self.workers[name].kill()
        self.workers[name] = self.worker(name)

    def processes(self) -> list[Node]:
        return [*self.workers.values(), self.node]

    def steps(self, seconds: float) -> Path:
        text = STEPS.format(place=self.place, step=STEP.replace("SECONDS", str(seconds)))
        return self.ground.write("steps.yaml", text)

    def started(self, *tasks: str) -> bool:
        lines = self.place.read_text()
        return all(f"start {task}\n" in lines for task in tasks)


@contextmanager
def a_crew(folder: Path) -> Iterator[Crew]:
    crew = Crew(folder)
    try:
        for worker in crew.workers.values():
            worker.ready()
        yield crew
        for process in crew.processes():
            process.stop()
    finally:
        for process in crew.processes():
            process.kill()
    until(lambda: not crew.ground.processes(), 20)


def each_ran_once(crew: Crew, client: Client, run: str) -> None:
    assert client.wait(run, timeout=60).state is RunState.SUCCEEDED
    for task in client.tasks(run):
        assert [attempt.state for attempt in task.attempts] == [AttemptState.SUCCEEDED]
    lines = Counter(re.findall(r"^(\w+ \w+)$", crew.place.read_text(), re.M))
    assert lines == Counter(f"{what} {task}" for what in ("start", "end") for task in "abcd")


def test_bundles_results_and_logs_go_over_the_wire(tmp_path: Path) -> None:
    with a_crew(tmp_path) as crew, crew.client() as client:
        client.apply(crew.ground.write("wire.py", FLOW))
        run = client.submit("wire").id
        assert client.wait(run, timeout=60).state is RunState.SUCCEEDED
        assert client.result(run, "measure") == 300_000
        make, measure = client.tasks(run)
        assert (make.attempts[0].worker, measure.attempts[0].worker) == ("left", "right")
        text = "".join(piece.text for piece in client.logs(run, "measure"))
        assert text == "measured 300000\n"
        workers = {worker.name: worker for worker in client.workers()}
        assert {name: worker.group for name, worker in workers.items()} == {
            "n1": "default", "left": "left", "right": "right",
        }  # fmt: skip
        assert all(worker.connected for worker in workers.values())
        assert all(worker.containment for worker in workers.values())


def test_a_worker_that_is_killed_comes_back_to_what_it_had(tmp_path: Path) -> None:
    with a_crew(tmp_path) as crew, crew.client() as client:
        client.apply(crew.steps(1.5))
        run = client.submit("steps").id
        until(lambda: crew.started("a", "b"))
        crew.again("left")
        crew.workers["left"].ready()
        each_ran_once(crew, client, run)


def test_workers_go_on_without_the_node_and_nothing_runs_twice(tmp_path: Path) -> None:
    with a_crew(tmp_path) as crew:
        with crew.client() as client:
            client.apply(crew.steps(1.0))
            run = client.submit("steps").id
        until(lambda: crew.started("a", "b"))
        crew.node.kill()
        # They end while nobody is there to be told.
        until(lambda: "end a" in crew.place.read_text() and "end b" in crew.place.read_text())
        # One of them is killed meanwhile, and starts where there is no server.
        crew.again("right")
        time.sleep(0.5)
        crew.node = node_at(crew.ground, crew.port).ready()
        with crew.client() as client:
            each_ran_once(crew, client, run)


def test_a_drained_worker_ends_what_it_has_and_gets_nothing_new(tmp_path: Path) -> None:
    with a_crew(tmp_path) as crew, crew.client() as client:
        client.apply(crew.steps(4.0))
        run = client.submit("steps").id
        until(lambda: crew.started("a", "b"))
        done = crew.ground.cli("worker", "drain", "left", "--wait", "-o", "json")
        assert done.returncode == 0, done.stderr
        assert '"busy": 0' in done.stdout
        assert "end a" in crew.place.read_text()
        until(lambda: crew.started("d"))
        (reason, *_) = client.explain(run, "c").tasks[0].reasons
        assert reason.code == "worker-draining"
        assert "DRAINED" in crew.ground.cli("worker", "list").stdout
        # Also as a new process.
        crew.again("left")
        crew.workers["left"].ready()
        (left,) = (worker for worker in client.workers() if worker.name == "left")
        assert left.draining
        assert not crew.started("c")
        assert crew.ground.cli("worker", "undrain", "left").returncode == 0
        each_ran_once(crew, client, run)
        assert crew.ground.cli("worker", "drain", "nobody").returncode == 6


def test_a_second_worker_of_a_name_is_told_that_there_is_one(tmp_path: Path) -> None:
    with a_crew(tmp_path) as crew:
        other = Ground(tmp_path / "other")
        double = WorkerProcess(
            other, "left", crew.port, "--group", "left", "--slots", "2",
            "--token-file", str(credential(crew.ground)),
        )  # fmt: skip
        try:
            until(lambda: "another data folder" in double.said())
            with crew.client() as client:
                client.apply(crew.steps(0.1))
                each_ran_once(crew, client, client.submit("steps").id)
            double.stop()
        finally:
            double.kill()


def test_a_worker_that_was_stopped_is_no_silent_one(tmp_path: Path) -> None:
    with a_crew(tmp_path) as crew, crew.client() as client:
        assert crew.ground.cli("worker", "drain", "left").returncode == 0
        crew.workers["left"].stop()
        (left,) = (worker for worker in client.workers() if worker.name == "left")
        assert left.state == "ENDED"
        crew.again("left")
        crew.workers["left"].ready()
        (left,) = (worker for worker in client.workers() if worker.name == "left")
        assert (left.state, left.draining) == ("LIVE", True)


def test_a_wrong_credential_and_a_folder_of_another_name_are_refused(tmp_path: Path) -> None:
    with a_crew(tmp_path) as crew:
        wrong = crew.ground.write("wrong", "0123456789abcdef\n")
        stranger = WorkerProcess(crew.ground, "w9", crew.port, "--token-file", str(wrong))
        code, said = stranger.ended()
        stranger.kill()
        assert code == 4, said
        assert "wrong credential" in said
        crew.workers["left"].stop()
        renamed = crew.ground.cli(
            "worker", "start", "--data", str(crew.workers["left"].data), "--name", "other",
            "--join", f"127.0.0.1:{crew.port}",
        )  # fmt: skip
        assert renamed.returncode == 4
        assert "the folder of worker left" in renamed.stderr


def test_a_silent_worker_is_told_of_and_its_attempt_can_be_given_up(tmp_path: Path) -> None:
    with a_crew(tmp_path) as crew, crew.client() as client:
        client.apply(crew.steps(60))
        run = client.submit("steps").id
        until(lambda: crew.started("a", "b"))
        crew.workers["left"].kill()

        def attempt() -> AttemptState:
            return client.tasks(run)[0].attempts[0].state

        until(lambda: attempt() is AttemptState.UNREACHABLE, within=20)
        (left,) = (worker for worker in client.workers() if worker.name == "left")
        assert left.silent_since is not None
        assert not left.connected
        crew.again("left")
        crew.workers["left"].ready()
        until(lambda: attempt() is AttemptState.RUNNING)
        client.cancel(run)
        assert client.wait(run, timeout=30).state is RunState.CANCELLED
