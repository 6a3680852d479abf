"""Tasks that behave badly, through the whole product: what users see, and that nothing stays."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from grampus.errors import NotFound, Refused
from grampus.model.run import AttemptState, RunState, TaskState
from grampus.sdk.answers import TaskRun
from grampus.sdk.client import Client
from tests.acceptance.node import Ground, until

HOSTILE = r"""
workflow: hostile
on_failure: continue
tasks:
  binary:   {shell: "head -c 200000 /dev/urandom; printf '\\000\\377\\r\\n'"}
  closed:   {shell: "exec 1>&- 2>&-; echo v=1 > $GRAMPUS_OUTPUT"}
  flood:    {shell: "yes 0123456789abcdef | head -c 1000000000; echo at the end"}
  children: {shell: "for i in $(seq 500); do sleep 60 & done; setsid sleep 60 & echo started"}
  deaf:     {shell: "trap '' TERM; while :; do sleep 0.05; done", timeout: 300ms, grace: 200ms}
  killed:   {shell: "kill -9 $$"}
  segv:     {shell: "kill -SEGV $$"}
  stopped:  {shell: "kill -STOP $$", timeout: 300ms, grace: 200ms}
  missing:  {shell: "exec /no/such/program"}
  noise:    {shell: "echo not-a-pair > $GRAMPUS_OUTPUT"}
  nothing:  {shell: "true"}
"""
#: What is kept of the flood at most, with the note about what was left out.
CAP = 65 * 2**20


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    ground = Ground(tmp_path_factory.mktemp("tasks"))
    with ground.up(slots=6):
        yield ground


@pytest.fixture
def client(ground: Ground) -> Iterator[Client]:
    with ground.client(timeout=30) as client:
        yield client


def by_name(client: Client, run: str) -> dict[str, TaskRun]:
    return {task.name: task for task in client.tasks(run)}


def test_whatever_a_task_does_its_neighbours_and_the_node_go_on(
    ground: Ground, client: Client
) -> None:
    client.apply(ground.write("hostile.yaml", HOSTILE))
    run = client.submit("hostile").id
    assert client.wait(run, timeout=60).state is RunState.FAILED
    tasks = by_name(client, run)
    states = {name: task.state for name, task in tasks.items()}
    good = ("binary", "closed", "flood", "children", "nothing")
    assert {states[name] for name in good} == {TaskState.SUCCEEDED}, states
    assert {states["deaf"], states["stopped"]} == {TaskState.TIMED_OUT}
    errors = {name: task.attempts[-1].error for name, task in tasks.items()}
    assert "SIGKILL" in errors["killed"]
    assert "SIGSEGV" in errors["segv"]
    assert "/no/such/program" in errors["missing"]
    assert "not-a-pair" in errors["noise"]
    assert all(len(task.attempts) == 1 for task in tasks.values())
    left = [line for line in ground.processes().values() if "sleep" in line or "yes" in line]
    assert left == []

    kept = ground.data / "worker" / "attempts" / run
    assert (kept / "flood.1.out").stat().st_size < CAP
    flood = list(client.logs(run, "flood"))
    assert flood[-1].text.endswith("at the end\n")
    assert flood[-1].next == 1_000_000_000 + len("at the end\n")
    binary = list(client.logs(run, "binary"))
    assert binary[-1].next == 200_004
    assert (kept / "binary.1.out").stat().st_size == 200_004
    client.delete(run)
    until(lambda: not kept.exists())


CANCELS = """
workflow: cancels
max_active_runs: 1
tasks:
  runs:     {shell: "echo started; sleep 60"}
  waits:    {shell: "true", after: [runs]}
  nowhere:  {shell: "true", group: nowhere}
  retries:  {shell: "exit 1", retry: {max: 5, delay: 60s}}
"""


def test_a_run_is_cancelled_in_whatever_state_its_tasks_are(ground: Ground, client: Client) -> None:
    client.apply(ground.write("cancels.yaml", CANCELS))
    first, second = client.submit("cancels").id, client.submit("cancels").id
    assert client.run(second).state is RunState.QUEUED
    wanted = {"runs": "RUNNING", "waits": "WAITING", "nowhere": "READY", "retries": "RETRYING"}
    until(lambda: {name: t.state for name, t in by_name(client, first).items()} == wanted)
    assert client.cancel(second).state is RunState.CANCELLED
    client.cancel(first)
    assert client.wait(first, timeout=20).state is RunState.CANCELLED
    tasks = by_name(client, first)
    assert {task.state for task in tasks.values()} == {TaskState.CANCELLED}
    assert [len(tasks[name].attempts) for name in wanted] == [1, 0, 0, 1]
    assert tasks["runs"].attempts[0].state is AttemptState.CANCELLED
    assert client.cancel(first).state is RunState.CANCELLED
    assert not [line for line in ground.processes().values() if "sleep" in line]


DEAF = """
workflow: deaf
tasks:
  only: {shell: "trap '' TERM; touch DEAF; while :; do sleep 0.05; done", grace: 3s}
"""


def test_it_is_explained_that_a_task_was_asked_to_end_and_has_its_grace(
    ground: Ground, client: Client
) -> None:
    deaf = ground.folder / "deaf"
    client.apply(ground.write("deaf.yaml", DEAF.replace("DEAF", str(deaf))))
    run = client.start("deaf").id
    until(deaf.exists)
    until(lambda: [a.state for a in client.tasks(run)[0].attempts] == [AttemptState.RUNNING])
    asked = time.time()
    client.cancel(run)
    (reason, *_) = client.explain(run, "only").tasks[0].reasons
    assert reason.code == "ending", reason
    assert "left of its grace, then it is killed" in reason.text
    assert reason.until is not None
    over = reason.until.timestamp()
    assert abs(over - asked - 3.0) < 1.0
    assert client.wait(run, timeout=20).state is RunState.CANCELLED
    assert abs(time.time() - over) < 2.0


def test_a_run_is_cancelled_at_any_moment_of_its_start(ground: Ground, client: Client) -> None:
    """STARTING lasts a millisecond or two: many are tried."""
    text = "workflow: brief\ntasks: {a: {shell: 'sleep 5'}, b: {shell: 'sleep 5'}}\n"
    client.apply(ground.write("brief.yaml", text))

    def start_and_cancel(pause: int) -> str:
        with ground.client() as mine:
            run = mine.submit("brief").id
            time.sleep(pause / 4000)
            mine.cancel(run)
            return run

    with ThreadPoolExecutor(4) as pool:
        runs = list(pool.map(start_and_cancel, range(40)))
    for run in runs:
        assert client.wait(run, timeout=20).state is RunState.CANCELLED
        for task in client.tasks(run):
            assert task.state is TaskState.CANCELLED
            assert len(task.attempts) <= 1
            assert all(a.state is AttemptState.CANCELLED for a in task.attempts)


def test_one_key_is_one_run_however_often_it_is_sent_at_once(
    ground: Ground, client: Client
) -> None:
    client.apply(ground.write("one.yaml", "workflow: one\ntasks: {a: {shell: 'true'}}\n"))
    gate = threading.Barrier(8)

    def submit(_: int) -> str:
        with ground.client() as mine:
            gate.wait(10)
            return mine.submit("one", key="the same").id

    with ThreadPoolExecutor(8) as pool:
        runs = set(pool.map(submit, range(8)))
    assert len(runs) == 1
    assert [run.id for run in client.runs(workflow="one")] == [*runs]
    with pytest.raises(Refused):
        client.submit("one", key="the same", priority=3)


VALUES = """
from grampus import shell, task, workflow

@task
def inline(i: int) -> str:
    return str(i % 10) * 15_000

@task
def blob(i: int) -> bytes:
    return bytes(1_500_000)

@task
def total(small: list[str], large: list[bytes], param: str) -> list[int]:
    return [sum(map(len, small)), sum(map(len, large)), len(param)]

@workflow
def values(text: str = ""):
    total([inline(i) for i in range(12)], [blob(i) for i in range(3)], text)
"""


def test_large_values_go_from_task_to_task(ground: Ground, client: Client) -> None:
    client.apply(ground.write("values.py", VALUES))
    run = client.start("values", {"text": "x" * 60_000}, wait=True)
    assert run.state is RunState.SUCCEEDED
    assert client.result(run.id, "total") == [12 * 15_000, 3 * 1_500_000, 60_000]


def test_one_task_reads_a_thousand(ground: Ground, client: Client) -> None:
    tasks = [f"  t{i}: {{shell: 'echo v={i} > $GRAMPUS_OUTPUT'}}\n" for i in range(999)]
    names = " ".join(f"{{{{tasks.t{i}.output.v}}}}" for i in range(999))
    tasks.append(f"  end: {{shell: 'set -- {names}; echo n=$#,${{999}} > $GRAMPUS_OUTPUT'}}\n")
    client.apply(ground.write("wide.yaml", "workflow: wide\ntasks:\n" + "".join(tasks)))
    run = client.submit("wide").id
    assert client.wait(run, timeout=60).state is RunState.SUCCEEDED
    assert client.result(run, "end") == {"n": "999,998"}


def test_work_that_cannot_start_is_in_nobodys_way(ground: Ground, client: Client) -> None:
    """A group without workers, and tasks larger than every worker."""
    waits = "".join(
        f"  g{i}: {{shell: 'true', group: nowhere}}\n  s{i}: {{shell: 'true', slots: 99}}\n"
        for i in range(1000)
    )
    client.apply(ground.write("stuck.yaml", "workflow: stuck\ntasks:\n" + waits))
    client.apply(ground.write("one.yaml", "workflow: one\ntasks: {a: {shell: 'true'}}\n"))
    stuck = [client.submit("stuck").id for _ in range(3)]
    for _ in range(5):
        assert client.start("one", wait=True).state is RunState.SUCCEEDED
    for run in stuck:
        client.cancel(run)
        assert client.wait(run, timeout=10).state is RunState.CANCELLED
        assert all(not task.attempts for task in client.tasks(run))


def test_many_runs_at_once_all_come_to_their_end(ground: Ground, client: Client) -> None:
    client.apply(ground.write("one.yaml", "workflow: one\ntasks: {a: {shell: 'true'}}\n"))

    def submit(_: int) -> list[str]:
        with ground.client(timeout=30) as mine:
            return [mine.submit("one").id for _ in range(50)]

    with ThreadPoolExecutor(8) as pool:
        runs = [run for some in pool.map(submit, range(8)) for run in some]
    assert len(set(runs)) == 400
    for run in runs:
        assert client.wait(run, timeout=60).state is RunState.SUCCEEDED


def test_what_is_deleted_while_it_is_read_ends_the_reading(ground: Ground, client: Client) -> None:
    text = "workflow: talk\ntasks: {a: {shell: 'for i in 1 2 3; do echo $i; sleep 0.1; done'}}\n"
    file = ground.write("talk.yaml", text)
    client.apply(file)
    run = client.submit("talk").id
    with pytest.raises(Refused):
        client.delete(run)
    seen: list[str] = []

    def follow() -> None:
        # Either end is right: the run was final, or is not there any more.
        with suppress(NotFound), ground.client() as mine:
            seen.extend(piece.text for piece in mine.logs(run, follow=True))

    reader = threading.Thread(target=follow)
    reader.start()
    client.wait(run, timeout=10)
    client.delete(run)
    reader.join(20)
    assert not reader.is_alive()
    with pytest.raises(NotFound):
        client.run(run)
    until(lambda: not (ground.data / "worker/attempts" / run).exists())
    client.delete_workflow("talk")
    with pytest.raises(NotFound):
        client.submit("talk")
    (applied,) = client.apply(file)
    assert (applied.version, applied.created) == (2, True)
    assert client.start("talk", wait=True).state is RunState.SUCCEEDED


def test_the_program_itself_says_the_same(ground: Ground) -> None:
    """Exit codes and streams of the command line."""
    file = ground.write("fails.yaml", "workflow: fails\ntasks: {a: {shell: 'echo no >&2; exit 3'}}")
    done = ground.cli("run", "start", str(file), "--wait")
    assert done.returncode == 1
    assert "exit code 3: no" in done.stderr + done.stdout
    log = ground.cli("run", "logs", "last", "a")
    assert log.stdout.strip().endswith("no")
    assert Path(ground.data / "node.toml").exists()
