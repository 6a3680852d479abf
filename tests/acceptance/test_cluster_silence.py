"""Who waits for a run while two of three servers are dead is told so, and goes on; and a task that
ends meanwhile has ended when it did."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from grampus.sdk.client import Client
from tests.acceptance.cluster import Site, site
from tests.acceptance.node import COMMAND, Node, until

pytestmark = [pytest.mark.raft, pytest.mark.timeout(240)]
#: It writes down when it is over, in wall ms.
SCRIPT = "echo begun; until [ -e {0}/gate ]; do sleep 0.1; done; date +%s%3N > {0}/over"
NOBODY = "no majority of the servers answers: trying again for a minute"
#: How far the ledger may be off what the task has written, in ms: it had to end itself yet.
EXACT = 2_000


def begin(ground: Site, client: Client) -> str:
    script = SCRIPT.format(ground.folder)
    file = ground.write("slow.yaml", f"workflow: slow\ntasks: {{it: {{shell: '{script}'}}}}\n")
    client.apply(str(file))
    return client.start("slow").id


def watch(ground: Site, run: str, survivor: str) -> list[Node]:
    """`run wait` and `run logs -f`, whose streams are on one server."""
    servers = ",".join(f"http://{ground.address(n)}" for n in (survivor, *ground.others(survivor)))
    at = ["--server", servers, "--token-file", str(ground.folder_of("a") / "token")]
    return [
        Node(ground, [*COMMAND, "run", "wait", run, *at], log="wait.log"),
        Node(ground, [*COMMAND, "run", "logs", run, "-f", *at], log="logs.log"),
    ]


def test_who_waits_is_told_that_no_majority_answers_and_goes_on(tmp_path: Path) -> None:
    with site(tmp_path) as ground, ExitStack() as stack:
        ground.grow()
        survivor = ground.others(ground.leader())[0]
        with ground.client() as client:
            run = begin(ground, client)
        wait, logs = watchers = watch(ground, run, survivor)
        stack.callback(lambda: [watcher.kill() for watcher in watchers])
        # They see it begin, so both are connected.
        ground.worker("w1")
        assert logs.process.stdout is not None
        assert logs.process.stdout.readline() == b"it | begun\n"
        until(lambda: "RUNNING" in wait.said(), 30)
        for name in ground.others(survivor):
            ground.kill(name)
        until(lambda: NOBODY in wait.said() and NOBODY in logs.said(), 40)
        (ground.folder / "gate").touch()
        over = ground.folder / "over"
        until(lambda: over.exists() and over.read_text(), 30)
        for name in ground.others(survivor):
            ground.launch(name)
        for watcher in watchers:
            code, said = watcher.ended(60)
            assert code == 0, said
            assert said.count(NOBODY) == said.count("a server answers again") == 1, said
        with ground.client() as client:
            (task,) = client.tasks(run)
            told = next(e.at for e in client.events(run) if e.type == "task.finished")
        assert task.ended is not None
        late = told.timestamp() * 1000 - int(over.read_text())
        assert abs(task.ended.timestamp() * 1000 - int(over.read_text())) < min(EXACT, late)
        assert task.ended == task.attempts[0].ended
