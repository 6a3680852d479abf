"""Pause, retry, story and explain on the command line and in the client, against the real API."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_node import Call, Node, Play, Puppet, all_succeed, caller, found

from grampus.errors import Refused
from grampus.model.run import AttemptState, Value
from grampus.model.workflow import Shell, Task, Workflow
from grampus.runs.commands import ApplyWorkflow, StartAttempts, TakeOffice, pack_definition
from grampus.sdk.client import Client

ETL = Workflow("etl", (Task("load", Shell("x")), Task("report", Shell("x"), after=("load",))))


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    with found(tmp_path, monkeypatch) as node:
        node.command(ApplyWorkflow(1, "etl", pack_definition(ETL.content())))
        yield node


@pytest.fixture
def grampus(node: Node, capsys: pytest.CaptureFixture[str]) -> Call:
    return caller(capsys)


def load_fails(task: str, attempt: int) -> tuple[str, AttemptState, Value | None]:
    failed = task == "load" and attempt == 1
    return "no rows\n", AttemptState.FAILED if failed else AttemptState.SUCCEEDED, None


def play(node: Node, script: Play) -> str:
    with Client() as client:
        run = client.submit("etl").id
    Puppet(node, script).run(run)
    return run


def test_a_failed_run_is_run_again_and_watched_to_its_end(node: Node, grampus: Call) -> None:
    run = play(node, load_fails)
    with Puppet(node, load_fails).playing(lambda: running(node, run)):
        code, out, err = grampus("run", "retry", run, "--wait")
    assert (code, out) == (0, f"{run}\n"), err
    assert "round 2: load, report" in err
    assert "UPSTREAM_FAILED" not in err, "the first round is told again"
    code, out, err = grampus("run", "retry", run, "-o", "json")
    assert (code, out) == (4, "")
    assert "say from which task on, as --from TASK" in err
    code, out, _ = grampus("run", "retry", run, "--from", "report", "-o", "json")
    assert (code, json.loads(out)) == (0, {"id": run, "round": 3, "tasks": ["report"]})
    assert grampus("run", "cancel", run)[0] == 0
    code, _, err = grampus("run", "retry", run)
    assert code == 4
    assert "start a new run" in err


def running(node: Node, run: str) -> str | None:
    view = node.ask(node.reads.run(run))
    return run if view is not None and view.state == "RUNNING" else None  # type: ignore[attr-defined]


def test_pause_and_resume(node: Node, grampus: Call) -> None:
    run = grampus("run", "start", "etl")[1].strip()
    assert grampus("run", "pause", run)[:2] == (0, f"{run} PAUSED\n")
    code, out, _ = grampus("run", "explain", run)
    assert code == 0
    assert "  the run is paused by user  [run-paused]\n" in out
    assert "  waits for load (READY)  [upstream]\n" in out
    code, out, _ = grampus("run", "resume", run, "-o", "json")
    assert (code, json.loads(out)["state"]) == (0, "RUNNING")
    assert grampus("run", "resume", "aaaaaaaaaaaa")[0] == 6


def test_a_story_has_a_line_for_everything(node: Node, grampus: Call) -> None:
    run = play(node, load_fails)
    code, out, _ = grampus("run", "story", run)
    assert code == 0
    lines = out.splitlines()
    clock = r"\d\d:\d\d:\d\d\.\d{3}  "
    assert re.fullmatch(clock + r" {7}  submitted: etl version 1", lines[0])
    ended = r"\+[\d.]+s  load/1 FAILED on w1 after [\d.]+s: exit code 3: no rows"
    assert [line for line in lines if re.fullmatch(clock + " *" + ended, line)]
    assert "report is UPSTREAM_FAILED: load did not succeed" in out
    code, out, _ = grampus("run", "story", run, "report", "-o", "json")
    told = [json.loads(line) for line in out.splitlines()]
    assert {line["task"] for line in told} == {"", "report"}
    with Client() as client:
        assert [line.text for line in client.story(run, "report")] == [t["text"] for t in told]
    assert grampus("run", "story", run, "nope")[0] == 6


def test_an_explanation_as_json_has_codes(node: Node, grampus: Call) -> None:
    run = play(node, load_fails)
    code, out, _ = grampus("run", "explain", run, "-o", "json")
    found = json.loads(out)
    assert (code, found["run"], found["state"]) == (0, run, "FAILED")
    assert [reason["code"] for reason in found["reasons"]] == ["run-finished"]
    assert [task["task"] for task in found["tasks"]] == ["load"]
    assert grampus("run", "explain", run, "nope")[0] == 6


def test_a_lost_attempt_is_declared_with_yes_only(node: Node, grampus: Call) -> None:
    run = grampus("run", "start", "etl")[1].strip()
    Puppet(node, all_succeed)
    assert grampus("run", "declare-lost", run, "load")[0] == 2
    code, _, err = grampus("run", "declare-lost", run, "load", "--yes")
    assert code == 4
    assert "has no attempt" in err
    # The session that this API calls connected is the first one.
    now = 2**41
    epoch = node.command(TakeOffice(now, "n2", 1))
    node.command(StartAttempts(now, epoch, 1, run, [(0, 1)]))  # type: ignore[arg-type]
    with Client() as client, pytest.raises(Refused, match="is connected"):
        client.declare_lost(run, "load")


def test_many_runs_are_started_at_once(node: Node) -> None:
    with Client() as client:
        done = client.submit_many([{"workflow": "etl"}] * 501 + [{"workflow": "nope"}])
        assert [each.created for each in done] == [True] * 501 + [False]
        assert done[-1].problem is not None
        assert "no workflow nope" in done[-1].problem.detail
        assert len({each.id for each in done}) == 502
