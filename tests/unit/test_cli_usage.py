"""The command line without a server: help, wrong usage, exit codes, and what a bug looks like."""

from __future__ import annotations

import json
import os
import re
import resource
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from grampus.cli import main as cli
from grampus.cli.errors import guarded
from grampus.errors import FolderError, GrampusError, InvalidInput, NoQuorum, NotFound, Problem
from grampus.sdk.client import Client
from grampus.sdk.transport import unreachable

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def grampus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Runs a command in this process: exit code, stdout, stderr."""
    for name in list(os.environ):
        if name.startswith("GRAMPUS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("GRAMPUS_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("GRAMPUS_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "etc"))

    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            cli.main(list(arguments))
        captured = capsys.readouterr()
        assert isinstance(left.value.code, int)
        return left.value.code, captured.out, captured.err

    return call


@pytest.fixture
def nowhere() -> str:
    """An address that nobody answers at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def time_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_help_answers_fast_and_needs_no_server() -> None:
    command = [sys.executable, "-m", "grampus.cli.main", "--help"]
    subprocess.run(command, check=True, capture_output=True)
    took = []
    for _ in range(3):
        # Of the processor, not of the clock: others may want it too.
        begun = time_of_children()
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        took.append(time_of_children() - begun)
    assert min(took) < 0.2
    assert "run start hello.py --wait" in done.stdout


def _helps(grampus: Run, *nouns: str) -> dict[tuple[str, ...], str]:
    """The help of a command and of all below it."""
    code, out, _ = grampus(*nouns, "--help")
    assert code == 0
    found = {nouns: out}
    for line in out.partition("\nCommands:\n")[2].splitlines():
        # A longer line is the rest of a text, or of the epilog.
        if re.match(r"  \S+  ", line):
            found |= _helps(grampus, *nouns, line.split()[0])
    return found


def test_every_help_reads_well_on_a_narrow_terminal(
    grampus: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    helps = _helps(grampus)
    assert len(helps) > 50
    for nouns, out in helps.items():
        assert max(map(len, out.splitlines())) <= 80, nouns
        # No summary is cut off, no argument is told with braces, two brackets or a type.
        summaries = out.partition("\nCommands:\n")[2]
        assert "..." not in summaries, nouns
        assert not re.search(r"[{}]|\[\[|<(str|list|int)", out), nouns


def test_help_imports_only_what_it_needs() -> None:
    code = (
        "import sys; sys.argv = ['grampus', '--help']\n"
        "from grampus.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([m for m in ('httpx', 'rich', 'jinja2', 'asyncio') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("noun", "verbs"),
    [
        ("workflow", "apply list show validate pause resume delete"),
        ("run", "start list show wait cancel logs result delete"),
        ("worker", "list"),
        ("config", "show"),
    ],
)
def test_a_noun_without_a_verb_shows_its_verbs(grampus: Run, noun: str, verbs: str) -> None:
    code, out, err = grampus(noun)
    assert (code, out) == (2, "")
    assert all(f"  {verb} " in err for verb in verbs.split())
    assert grampus(noun, "--help")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--frobnicate"], "no such option"),
        (["workflow", "aply"], "apply"),
        (["run", "start"], "missing argument"),
        (["run", "list", "--limit", "0"], "--limit"),
        (["run", "list", "-o", "xml"], "xml"),
        (["run", "list", "--state", "BROKEN"], "allowed: QUEUED, RUNNING"),
        (["run", "start", "w", "-p", "year"], "KEY=VALUE"),
        (["run", "start", "w", "-p", "a=1", "-p", "a=2"], "given twice"),
        (["run", "start", "w", "--priority", "2000"], "--priority"),
        (["run", "start", "w", "--key", "clé"], "printable ASCII"),
        (["run", "show", "abc"], "too short"),
        (["up", "--slots", "0"], "--slots: `slots` cannot be this (found '0'; allowed: a whole"),
        (["up", "--listen", "8470"], "HOST:PORT"),
        (["--server", "localhost", "worker", "list"], "allowed: addresses such as"),
        (["workflow", "delete", "w"], "say --yes"),
        (["workflow", "show", "\udcff"], "not UTF-8"),
        (["worker", "list", "--token-file", "/none"], "cannot be read"),
    ],
)
def test_wrong_usage_is_told_on_stderr_and_exits_with_2(
    grampus: Run, arguments: list[str], told: str
) -> None:
    code, out, err = grampus(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert told in err


def test_the_version_is_data(grampus: Run) -> None:
    code, out, err = grampus("--version")
    assert (code, err) == (0, "")
    assert out.startswith("grampus ")


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "list"],
        ["run", "start", "w", "-p", "a=b"],
        ["run", "cancel", "last"],
        ["workflow", "pause", "w"],
        ["worker", "list", "-o", "json"],
    ],
)
def test_without_a_server_it_says_where_it_looked_and_exits_with_3(
    grampus: Run, nowhere: str, arguments: list[str]
) -> None:
    code, out, err = grampus(*arguments, "--server", f"{nowhere},{nowhere}0")
    assert (code, out) == (2, "")
    other = nowhere.replace("127.0.0.1", "127.0.0.2")
    code, out, err = grampus(*arguments, "--server", f"{nowhere},{other}")
    assert (code, out) == (3, "")
    assert f"{nowhere}: connection refused" in err
    assert f"{other}: connection refused" in err
    assert "grampus up" in err


def test_options_of_a_lock_come_before_its_name(grampus: Run, nowhere: str) -> None:
    code, out, err = grampus("kv", "lock", "backup", "--server", nowhere, "--", "true")
    assert (code, out) == (2, "")
    assert "--server comes after NAME" in err
    assert nowhere in grampus("kv", "lock", "--server", nowhere, "backup", "--", "true")[2]


def test_a_server_that_never_answers_is_given_up_within_five_seconds(grampus: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        begun = time.monotonic()
        code, _, err = grampus("run", "list", "--server", f"http://127.0.0.1:{port}")
        assert code == 3
        assert "no answer in time" in err
        assert time.monotonic() - begun < 20  # five, and what the machine takes


def test_the_server_may_be_named_before_the_noun(grampus: Run, nowhere: str) -> None:
    assert nowhere in grampus("--server", nowhere, "run", "list")[2]
    other = nowhere.replace("127.0.0.1", "127.0.0.2")
    assert other in grampus("--server", nowhere, "run", "list", "--server", other)[2]


def test_the_server_may_be_named_in_the_environment(
    grampus: Run, nowhere: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAMPUS_SERVER", nowhere)
    code, _, err = grampus("run", "list")
    assert code == 3
    assert nowhere in err


def test_config_show_prints_each_setting_with_its_source(grampus: Run, tmp_path: Path) -> None:
    code, out, err = grampus("config", "show", "-o", "json", "--data", str(tmp_path / "d"))
    assert (code, err) == (0, "")
    rows = {row["name"]: row for row in json.loads(out)}
    assert rows["data"] == {"name": "data", "value": str(tmp_path / "d"), "source": "option --data"}
    assert rows["state"]["source"] == "environment GRAMPUS_STATE"
    shown = [line.split() for line in grampus("config", "show")[1].splitlines()]
    assert ["listen", "127.0.0.1:8470", "default"] in shown


def test_a_wrong_settings_file_is_wrong_usage(grampus: Run, tmp_path: Path) -> None:
    file = tmp_path / "etc/grampus/grampus.toml"
    file.parent.mkdir(parents=True)
    file.write_text("slot = 3\nname = 4\n")
    code, _, err = grampus("config", "show")
    assert code == 2
    assert f"error: {file}:1: there is no setting `slot`; did you mean `slots`?" in err
    assert err.endswith("2 errors\n")


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (NotFound("there is no such thing"), 6, "error: there is no such thing\n"),
        (FolderError("in use"), 4, "error: in use\n"),
        (GrampusError("odd"), 70, "error: odd\n"),
        (InvalidInput([Problem("bad", "f.yaml", 3)]), 2, "error: f.yaml:3: bad\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_each_error_has_its_exit_code(
    grampus: Run,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
    told: str,
) -> None:
    def fail(self: Client) -> None:
        raise error

    monkeypatch.setattr(Client, "workers", fail)
    assert grampus("worker", "list") == (code, "", told)


def test_a_bug_is_one_line_and_its_traceback_goes_to_a_file(
    grampus: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(self: Client) -> None:
        raise ZeroDivisionError("oh\nno")

    monkeypatch.setattr(Client, "workers", fail)
    code, out, err = grampus("worker", "list")
    assert (code, out) == (70, "")
    assert "Traceback" not in err
    (file,) = (tmp_path / "state/crashes").iterdir()
    assert str(file) in err
    assert "ZeroDivisionError" in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    monkeypatch.setenv("GRAMPUS_DEBUG", "1")
    assert "Traceback" in grampus("worker", "list")[2]


def test_a_bug_is_told_even_where_nothing_can_be_written(
    grampus: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Client) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Client, "workers", fail)
    monkeypatch.setenv("GRAMPUS_STATE", "/proc/none")
    code, _, err = grampus("worker", "list")
    assert code == 70
    assert "could not be kept" in err


def test_a_reader_that_has_enough_is_no_error(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from grampus.cli.errors import guarded\n"
        "sys.exit(guarded(lambda: [print('x' * 1000) for _ in range(1000)]))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(10) == 0
        assert process.stderr.read() == b""


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_bug(tmp_path: Path, closed: str) -> None:
    env = os.environ | {"GRAMPUS_STATE": str(tmp_path), "GRAMPUS_DATA": str(tmp_path)}
    command = f"{sys.executable} -m grampus.cli.main config show {closed}"
    assert subprocess.run(["/bin/sh", "-c", command], env=env, check=False).returncode == 0
    assert not (tmp_path / "crashes").exists()


def test_a_full_disk_is_no_bug(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "grampus.cli.main", "config", "show"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 4
    assert done.stderr == "error: the output cannot be written: No space left on device\n"


def test_ctrl_c_is_one_line_even_while_modules_are_read() -> None:
    code = (
        "import sys\n"
        "from grampus.cli.main import main\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'typer': raise KeyboardInterrupt\n"
        "assert 'typer' not in sys.modules\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        "main(['run', 'list'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


def test_an_error_in_a_group_is_that_error(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise ExceptionGroup("", [FolderError("the folder is in use")])

    assert guarded(fail) == 4
    assert capsys.readouterr().err == "error: the folder is in use\n"


@pytest.mark.parametrize("text", ["1e300", "0", "nan", "inf", "-1", "soon", ""])
def test_a_time_that_is_none_is_wrong_usage(grampus: Run, text: str) -> None:
    code, _, err = grampus("run", "wait", "last", "--timeout", text)
    assert code == 2
    assert err.startswith("error: --timeout: cannot be used")


@pytest.mark.parametrize(
    "arguments", [["workflow", "validate", ""], ["run", "start", ""], ["up", "--data", ""]]
)
def test_an_empty_name_is_not_the_working_directory(grampus: Run, arguments: list[str]) -> None:
    code, _, err = grampus(*arguments)
    assert code == 2
    assert err.count("\n") == 1


def test_what_children_of_a_users_module_print_is_no_data(tmp_path: Path) -> None:
    (tmp_path / "loud.py").write_text(
        "import os\nfrom grampus import shell, workflow\nos.system('echo noise')\n"
        "os.write(1, b'more noise\\n')\n"
        "@workflow\ndef loud():\n    shell('true', name='a')\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "grampus.cli.main", "workflow", "validate", "loud.py", "-o", "json"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert json.loads(done.stdout) == [{"source": "loud.py", "name": "loud", "tasks": 1}]
    assert "noise" in done.stderr


def test_who_finds_no_majority_is_told_where_to_look(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise NoQuorum("no server leads")

    assert guarded(fail) == 3
    told = "error: no server leads\n  who is missing:  grampus cluster status\n"
    assert capsys.readouterr().err == told


@pytest.mark.parametrize(
    ("tried", "hint"),
    [
        (
            "http://127.0.0.1:8470: connection refused",
            "start one: grampus up, or grampus server start",
        ),
        (
            "https://[::1]:8470: connection refused",
            "start one: grampus up, or grampus server start",
        ),
        ("https://node1:8470: connection refused", "look whether it runs there, and at --server"),
        (
            "https://127.0.0.1:8470: its certificate is not trusted",
            "look whether it runs there, and at --server",
        ),
    ],
)
def test_nobody_is_told_to_start_a_node_for_another_machine(tried: str, hint: str) -> None:
    assert str(unreachable([tried])) == f"no server answers\n  {tried}\n{hint}"


def test_a_token_file_that_is_not_there_is_told_in_words(grampus: Run) -> None:
    _, _, err = grampus("worker", "list", "--token-file", "/none")
    assert err == "error: the token file /none cannot be read: No such file or directory\n"
