"""The command line and the client against the real API: from a workflow to its logs and results."""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cli_node import TOKEN, Call, Node, Play, Puppet, all_succeed, caller, found, newest

from grampus.errors import NotFound, Refused, UsageError
from grampus.ids import is_run_id
from grampus.model.run import AttemptState, Value
from grampus.model.workflow import Param, Retry, Schedule, Shell, Task, Workflow
from grampus.sdk.client import Client


@dataclass
class Loaded:
    """What `sdk.load` gives."""

    workflow: Workflow
    bundle: bytes | None = None
    source: str = "w.py"


TASKS = (
    Task("extract", Shell("x")),
    Task("load", Shell("x"), after=("extract",), retry=Retry(max=1)),
    Task("report", Shell("x"), after=("load",)),
)
ETL = Workflow("etl", TASKS, params=(Param("year", "int", 2013), Param("tables", "list", [])))
BOOM = "Traceback (most recent call last):\n  File 'x.py'\nValueError: no rows"


def json_value(value: object) -> Value:
    data = json.dumps(value).encode()
    return Value("json", data, None, len(data))


def load_fails(task: str, attempt: int) -> tuple[str, AttemptState, Value | None]:
    if task == "load":
        return BOOM, AttemptState.FAILED, None
    return f"{task} was here\n", AttemptState.SUCCEEDED, json_value({"rows": 3})


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    with found(tmp_path, monkeypatch) as node:
        yield node


@pytest.fixture
def client(node: Node) -> Iterator[Client]:
    with Client() as client:
        client.apply_loaded(Loaded(ETL))
        yield client


@pytest.fixture
def grampus(client: Client, capsys: pytest.CaptureFixture[str]) -> Call:
    return caller(capsys)


def play(node: Node, client: Client, script: Play = all_succeed) -> str:
    """A run that is over."""
    run = client.submit("etl").id
    Puppet(node, script).run(run)
    return run


def test_start_prints_the_id_and_nothing_else_on_stdout(grampus: Call) -> None:
    code, out, err = grampus("run", "start", "etl", "-p", "year=2014", "-p", "tables=a,b")
    assert code == 0
    assert is_run_id(out.removesuffix("\n"))
    assert f"grampus run cancel {out}" in err + "\n"
    view = json.loads(grampus("run", "show", out.strip(), "-o", "json")[1])
    assert view["params"] == {"year": 2014, "tables": ["a", "b"]}
    assert [t["name"] for t in view["task_runs"]] == ["extract", "load", "report"]


def test_wrong_params_are_told_all_at_once_and_start_nothing(grampus: Call) -> None:
    code, out, err = grampus("run", "start", "etl", "-p", "year=soon", "-p", "tabels=a")
    assert (code, out) == (2, "")
    assert "-p year: 'soon' is not a whole number" in err
    assert "did you mean `tables`?" in err
    assert json.loads(grampus("run", "list", "-o", "json")[1]) == []


def test_a_file_is_applied_only_when_its_run_can_start(grampus: Call, tmp_path: Path) -> None:
    path = tmp_path / "fresh.yaml"
    path.write_text("workflow: fresh\nparams: {n: {type: int}}\ntasks: {a: {shell: 'true'}}\n")
    assert "-p n: is missing" in grampus("run", "start", str(path))[2]
    assert grampus("run", "start", str(path), "-p", "n=x")[0] == 2
    assert grampus("workflow", "show", "fresh")[0] == 6
    assert grampus("run", "start", str(path), "-p", "n=3")[0] == 0


def test_a_name_that_is_nearly_right_is_answered(
    grampus: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "did you mean `etl`?" in grampus("run", "start", "elt")[2]
    assert "did you mean `etl`?" in grampus("run", "start", "elt", "-p", "year=1")[2]
    (tmp_path / "other.py").touch()
    assert "grampus run start other.py" in grampus("run", "start", "other")[2]


@pytest.mark.parametrize("options", [(), ("-o", "json")])
def test_the_end_of_a_run_is_the_exit_code_though_nobody_reads(
    node: Node, client: Client, options: tuple[str, ...]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with Puppet(node, load_fails).playing(newest(node)):
        command = ("run", "start", "etl", "--wait", *options)
        with spawn(*command, stdout=writer, stderr=subprocess.PIPE) as process:
            os.close(writer)
            _, err = process.communicate(timeout=20)
    assert process.returncode == 1, err.decode()


def test_logs_that_are_not_there_are_told(node: Node, grampus: Call, client: Client) -> None:
    run = play(node, client)
    assert "nothing was written\n" in grampus("run", "logs", run, "--attempt", "9")[2]


def test_the_same_key_is_the_same_run_and_another_request_is_a_conflict(grampus: Call) -> None:
    first = grampus("run", "start", "etl", "--key", "nightly-1", "-o", "json")[1]
    code, again, err = grampus("run", "start", "etl", "--key", "nightly-1", "-o", "json")
    assert code == 0
    assert json.loads(again) == {"id": json.loads(first)["id"], "created": False}
    assert "by the same request before" in err
    assert grampus("run", "start", "etl", "--key", "nightly-1", "-p", "year=1")[0] == 4


def test_waiting_for_a_run_that_succeeds(node: Node, grampus: Call) -> None:
    with Puppet(node, all_succeed).playing(newest(node)):
        code, out, err = grampus("run", "start", "etl", "--wait")
    assert code == 0
    assert is_run_id(out.strip())
    assert re.search(r"^\d\d:\d\d:\d\d  load +RUNNING +on w1$", err, re.M)
    assert re.search(r"^\d\d:\d\d:\d\d  report +SUCCEEDED +after ", err, re.M)
    assert f"run {out.strip()} of etl SUCCEEDED in " in err


def test_waiting_for_a_run_that_fails_tells_its_last_words(node: Node, grampus: Call) -> None:
    with Puppet(node, load_fails).playing(newest(node)):
        code, out, err = grampus("run", "start", "etl", "--wait", "-o", "json")
    assert code == 1
    view = json.loads(out)
    assert (view["state"], view["counts"]["FAILED"]) == ("FAILED", 1)
    assert re.search(r"load +RETRYING +attempt 2: ValueError: no rows", err)
    assert "load FAILED (try 2 of 2)" in err
    assert "    Traceback (most recent call last):\n" in err
    assert f"grampus run logs {view['id']} load" in err


def test_waiting_for_a_run_that_is_cancelled(node: Node, grampus: Call, client: Client) -> None:
    run = client.submit("etl").id
    code, out, _ = grampus("run", "cancel", "last")
    assert (code, out) == (0, f"{run} CANCELLED\n")
    code, out, err = grampus("run", "wait", run[:6])
    assert (code, out) == (5, "CANCELLED\n")
    assert f"{run[:6]} is run {run} of etl" in err


def test_wait_leaves_when_its_time_is_up(grampus: Call, client: Client) -> None:
    run = client.submit("etl").id
    begun = time.monotonic()
    code, out, err = grampus("run", "wait", run, "--timeout", "0.5")
    assert time.monotonic() - begun < 3
    assert (code, out) == (130, "")
    assert "is not over after 500ms: it goes on" in err
    assert f"grampus run cancel {run}" in err


def test_what_there_is_not_exits_with_6(grampus: Call, client: Client, node: Node) -> None:
    for arguments in (
        ["run", "show", "last"],
        ["run", "show", "aaaaaaaaaaaa"],
        ["run", "show", "NOT-AN-ID"],
        ["run", "start", "nothing"],
        ["run", "start", "nothing", "-p", "a=1"],
        ["workflow", "show", "nothing"],
        ["workflow", "show", "etl", "--version", "9"],
        ["workflow", "pause", "nothing"],
    ):
        assert (arguments, grampus(*arguments)[:2]) == (arguments, (6, ""))
    run = play(node, client)
    code, _, err = grampus("run", "logs", run, "extrct")
    assert code == 6
    assert "did you mean `extract`?" in err
    assert grampus("run", "result", run, "nobody")[0] == 6
    assert grampus("run", "result", run, "load")[0] == 6


def test_a_prefix_of_several_runs_is_refused(node: Node, grampus: Call, client: Client) -> None:
    for id in ("aaaabbbbcccc", "aaaaddddeeee"):
        client._transport.ask("POST", "/api/v1/runs", body={"workflow": "etl", "id": id})
    code, _, err = grampus("run", "show", "aaaa")
    assert code == 4
    assert "aaaabbbbcccc and aaaaddddeeee" in err


def test_logs_of_a_run_say_whose_they_are(node: Node, grampus: Call, client: Client) -> None:
    run = play(node, client, load_fails)
    code, out, err = grampus("run", "logs", run)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "extract | extract was here",
        "load | Traceback (most recent call last):",
        "load |   File 'x.py'",
        "load | ValueError: no rows",
        "load/2 | Traceback (most recent call last):",
        "load/2 |   File 'x.py'",
        "load/2 | ValueError: no rows",
    ]


def test_logs_of_one_attempt_are_as_they_were_written(
    node: Node, grampus: Call, client: Client
) -> None:
    run = play(node, client, load_fails)
    assert grampus("run", "logs", run, "load", "--attempt", "2")[1] == BOOM
    assert grampus("run", "logs", run, "load", "--stream", "stdout")[1] == ""
    lines = grampus("run", "logs", run, "extract", "-f", "-o", "json")[1].splitlines()
    assert [json.loads(line)["text"] for line in lines] == ["extract was here\n"]


def test_results_are_json_text_or_refused(node: Node, grampus: Call, client: Client) -> None:
    big = json.dumps({"big": "x" * 2_000_000}).encode()
    pickled = pickle.dumps({1, 2})

    def script(task: str, attempt: int) -> tuple[str, AttemptState, Value | None]:
        values = {
            "extract": json_value("two\nlines"),
            "load": Value("json", None, node.blobs.put(big), len(big)),
            "report": Value("pickle", pickled, None, len(pickled)),
        }
        return "", AttemptState.SUCCEEDED, values[task]

    run = play(node, client, script)
    assert grampus("run", "result", run, "extract")[1] == "two\nlines\n"
    assert grampus("run", "result", run, "extract", "-o", "json")[1] == '"two\\nlines"\n'
    assert json.loads(grampus("run", "result", run, "load")[1]) == json.loads(big)
    code, out, err = grampus("run", "result", "last", "report")
    assert (code, out) == (4, "")
    assert "unpickle=True" in err
    with pytest.raises(Refused):
        client.result(run, "report")
    assert client.result(run, "report", unpickle=True) == {1, 2}


def test_a_run_is_deleted_when_it_is_over_and_was_meant(
    node: Node, grampus: Call, client: Client
) -> None:
    run = play(node, client)
    assert grampus("run", "delete", "last")[0] == 2
    assert grampus("run", "delete", run[:5], "--yes")[:2] == (0, "")
    with pytest.raises(NotFound):
        client.run(run)
    active = client.submit("etl").id
    assert grampus("run", "delete", active, "--yes")[0] == 4


def test_workflows_are_listed_shown_paused_and_deleted(grampus: Call, client: Client) -> None:
    later = Schedule(cron="0 6 * * *", tz="Europe/Paris")
    other = Workflow("other", TASKS[:1], schedule=later)
    assert client.apply_loaded(Loaded(other)).note == ""
    names = [w["name"] for w in json.loads(grampus("workflow", "list", "-o", "json")[1])]
    assert names == ["etl", "other"]
    assert "0 6 * * * Europe/Paris" in grampus("workflow", "list")[1]
    assert grampus("workflow", "pause", "etl")[:2] == (0, "")
    assert "etl, version 1, PAUSED" in grampus("workflow", "show", "etl")[1]
    run = client.submit("etl").id
    assert client.run(run).state == "QUEUED"
    assert grampus("workflow", "delete", "etl", "--yes")[0] == 4
    assert grampus("workflow", "resume", "etl")[0] == 0
    assert client.run(run).state == "RUNNING"
    assert grampus("workflow", "delete", "other", "--yes")[:2] == (0, "")
    assert [w.name for w in client.workflows()] == ["etl"]


def test_a_bundle_goes_before_its_workflow_and_only_once(node: Node, client: Client) -> None:
    from grampus.ids import content_hash

    bundle = os.urandom(2_000_000)
    loaded = Loaded(Workflow("b", TASKS[:1], bundle=content_hash(bundle)), bundle)
    assert client.apply_loaded(loaded).created
    assert node.blobs.size(content_hash(bundle)) == len(bundle)
    assert not client.apply_loaded(loaded).created


def test_runs_are_listed_newest_first(node: Node, grampus: Call, client: Client) -> None:
    over = play(node, client)
    active = client.submit("etl").id
    ids = [r["id"] for r in json.loads(grampus("run", "list", "-o", "json")[1])]
    assert ids == [active, over]
    assert [x.id for x in client.runs(limit=1)] == [active]
    rows = grampus("run", "list", "--state", "succeeded")[1].splitlines()
    assert len(rows) == 2
    assert rows[1].split()[:5] == [over, "etl", "v1", "SUCCEEDED", "3/3"]
    assert json.loads(grampus("run", "list", "--workflow", "none", "-o", "json")[1]) == []


def test_workers_are_listed_with_their_slots(node: Node, grampus: Call) -> None:
    assert json.loads(grampus("worker", "list", "-o", "json")[1]) == []
    Puppet(node, all_succeed)
    row = grampus("worker", "list")[1].splitlines()[1]
    assert row.split()[:5] == ["w1", "LIVE", "default", "0/4", "12%"]


def test_without_its_token_a_client_is_refused_and_told_where_tokens_are(
    node: Node, grampus: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAMPUS_STATE", str(tmp_path / "other"))
    code, out, err = grampus("run", "list", "--server", node.url)
    assert (code, out) == (4, "")
    assert "GRAMPUS_TOKEN" in err
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    assert grampus("run", "list", "--server", node.url, "--token-file", str(file))[0] == 0
    monkeypatch.setenv("GRAMPUS_TOKEN", TOKEN)
    assert grampus("run", "list", "--server", node.url)[0] == 0
    assert TOKEN not in err


def test_the_client_starts_and_waits(node: Node, client: Client) -> None:
    with Puppet(node, load_fails).playing(newest(node)):
        run = client.start("etl", {"year": 1}, wait=True)
    assert (run.state, run.final, run.params["year"]) == ("FAILED", True, 1)
    tasks = {task.name: task for task in client.tasks(run.id)}
    assert [a.error for a in tasks["load"].attempts] == ["ValueError: no rows"] * 2
    assert client.result(run.id, "extract") == {"rows": 3}
    kinds = [event.type for event in client.events("last")]
    assert (kinds[0], kinds[-1]) == ("run.submitted", "run.finished")
    assert [p.text for p in client.logs("last", "extract")] == ["extract was here\n"]


def spawn(*arguments: str, **options: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "grampus.cli.main", *arguments]
    return subprocess.Popen(command, **options)  # type: ignore[call-overload, no-any-return]


def test_ctrl_c_detaches_and_the_run_goes_on(node: Node, client: Client) -> None:
    with spawn(
        "run", "start", "etl", "--wait", stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        run = process.stdout.readline().decode().strip()
        deadline = time.monotonic() + 10
        # The watch has begun when its stream is open.
        while not node.wakes.streams and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10)
    assert process.returncode == 130
    assert f"detached: run {run} goes on" in err.decode()
    assert f"grampus run cancel {run}" in err.decode()
    assert client.run(run).state == "RUNNING"


def test_on_a_terminal_the_run_is_a_live_picture_that_ends(node: Node, client: Client) -> None:
    master, terminal = pty.openpty()
    env = os.environ | {"TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"}
    env.pop("NO_COLOR", None)
    with Puppet(node, load_fails, pace=0.8).playing(newest(node)):
        process = spawn(
            "run", "start", "etl", "--wait", stdout=subprocess.PIPE, stderr=terminal, env=env
        )
        os.close(terminal)
        seen = b""
        while select.select([master], [], [], 20)[0]:
            try:
                seen += os.read(master, 65536)
            except OSError:
                break
        os.close(master)
        out, _ = process.communicate(timeout=10)
    assert process.returncode == 1
    assert is_run_id(out.decode().strip())
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode())
    assert "● extract" in text
    assert "1/3 done" in text
    assert "✗ load" in text
    assert "3/3 done, 1 failed" in text
    assert "load FAILED (try 2 of 2)" in text
    # The cursor is given back.
    assert seen.decode().rindex("\x1b[?25h") > seen.decode().rindex("\x1b[?25l")


def test_the_client_applies_files_and_workflow_functions(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "two.py"
    file.write_text(
        "from grampus import shell, workflow\n"
        "@workflow\ndef one(): shell('true', name='a')\n"
        "@workflow\ndef two(day: str = 'x'): shell('true', name='a')\n"
    )
    assert [(a.name, a.version) for a in client.apply(file)] == [("one", 1), ("two", 1)]
    spec = importlib.util.spec_from_file_location("two", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    run = client.start(module.two, {"day": "y"})
    assert (run.workflow, run.params) == ("two", {"day": "y"})
    with pytest.raises(UsageError):
        client.apply(print)


@pytest.mark.parametrize(("answer", "code"), [("n", 130), ("", 130), ("yes", 0)])
def test_on_a_terminal_it_asks_before_it_destroys(
    client: Client, node: Node, answer: str, code: int
) -> None:
    run = play(node, client)
    master, terminal = pty.openpty()
    process = spawn("run", "delete", run, stdin=terminal, stderr=terminal)
    os.close(terminal)
    os.write(master, f"{answer}\n".encode())
    assert process.wait(10) == code
    assert f"Delete run {run} of etl" in os.read(master, 4096).decode()
    os.close(master)
    assert [x.id for x in client.runs()] == ([] if code == 0 else [run])
