"""Every kind of task in a real process, as the warden would start it."""

from __future__ import annotations

import json
import os
import pickle
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest

from grampus.model.run import Value
from grampus.model.workflow import Action, Http, Python, Shell, Sleep, Sql, Task
from grampus.protocol import Invocation
from grampus.tasks.launch import Place, TaskFailure, plan, prepare
from grampus.tasks.output import Found, FoundError, find
from grampus.tasks.value import decode
from grampus.worker.environment import task_environment


class Outcome:
    def __init__(self, process: subprocess.CompletedProcess[str], output: Path, shell: bool):
        self.exit, self.stdout, self.stderr = process.returncode, process.stdout, process.stderr
        self.found = None
        if output.exists():
            with output.open("rb") as file:
                self.found = find(file, shell)
        self._output = output

    @property
    def value(self) -> Any:
        assert isinstance(self.found, Found), (self.found, self.stderr)
        data = self.found.data or self._output.read_bytes()[self.found.offset :]
        return decode(self.found.encoding, data)

    @property
    def error(self) -> FoundError:
        assert isinstance(self.found, FoundError), self.found
        return self.found


class Bench:
    """Starts attempts in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bundle = folder / "bundle"
        for part in ("scratch", "bundle"):
            (folder / part).mkdir()
        env = task_environment({"PATH": os.environ["PATH"], "LANG": "C.UTF-8"}, sys.executable)
        env["NO_PROXY"] = "*"
        self.place = Place(env, str(folder / "scratch"))

    def module(self, name: str, text: str) -> None:
        (self.bundle / f"{name}.py").write_text(text)

    def invocation(
        self, task: Task, params: dict[str, Any], inputs: dict[str, Value]
    ) -> Invocation:
        return Invocation(
            run="aaaaaaaaaaaa",
            workflow="flow",
            version=3,
            task=task.name,
            attempt=2,
            fencing_token=77,
            spec=msgspec.json.encode(task),
            params=json.dumps(params).encode(),
            tick=1_767_323_045_000,
            tz="Europe/Paris",
            bundle="b",
            inputs=inputs,
        )

    def run(
        self,
        action: Action,
        params: dict[str, Any] | None = None,
        inputs: dict[str, Value] | None = None,
        direct: bool = False,
        **fields: Any,
    ) -> Outcome:
        task = Task(name="t", action=action, **fields)
        invocation = self.invocation(task, params or {}, inputs or {})
        process = prepare(invocation, self.place, str(self.bundle), lambda hash: hash)
        assert (process.spec is None) == direct
        output, orders = self.folder / "output", self.folder / "orders"
        output.unlink(missing_ok=True)
        told = {"GRAMPUS_OUTPUT": str(output)}
        if process.spec is not None:
            orders.write_bytes(process.spec)
            told["GRAMPUS_SPEC"] = str(orders)
        done = subprocess.run(
            process.argv,
            env=process.env | told,
            cwd=process.cwd,
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
        )
        return Outcome(done, output, plan(invocation.spec).is_shell)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def inline(value: Any) -> Value:
    data = json.dumps(value).encode()
    return Value("json", data, None, len(data))


# Shell


def test_a_simple_shell_task_starts_without_python_and_with_its_values_quoted(bench: Bench) -> None:
    done = bench.run(
        Shell("echo {{ params.day }} {{ tasks.a.output.rows }} $EXTRA; pwd"),
        {"day": "x; echo no"},
        {"a": inline({"rows": "$(id)"})},
        direct=True,
        env={"EXTRA": "{{ tick.date }}"},
    )
    assert done.stdout == f"x; echo no $(id) 2026-01-02\n{bench.bundle}\n"
    assert done.found is None


def test_a_shell_task_with_more_than_plain_references_says_the_same(bench: Bench) -> None:
    command = (
        "echo {% for d in params.days %}{{ d }} {% endfor %} $EXTRA; echo n=1 >$GRAMPUS_OUTPUT"
    )
    done = bench.run(Shell(command), {"days": ["a b", "c"]}, env={"EXTRA": "{{ params.days[1] }}"})
    assert done.stdout == "a b c c\n"
    assert done.value == {"n": "1"}


def test_a_template_without_a_value_fails_before_anything_runs(bench: Bench) -> None:
    with pytest.raises(ValueError, match="day"):
        bench.run(Shell("echo {{ params.day }}"))
    done = bench.run(Shell("echo {{ params.day | upper }}"))
    assert done.exit == 1
    assert "day" in done.error.error
    assert "Traceback" not in done.stderr


def test_the_environment_is_a_white_list_and_says_what_runs(bench: Bench) -> None:
    done = bench.run(Shell("env"), direct=True)
    env = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert env.pop("PATH").startswith(os.path.dirname(sys.executable))
    assert {name: env[name] for name in env if name.startswith("GRAMPUS")} == {
        "GRAMPUS_RUN": "aaaaaaaaaaaa",
        "GRAMPUS_WORKFLOW": "flow",
        "GRAMPUS_TASK": "t",
        "GRAMPUS_ATTEMPT": "2",
        "GRAMPUS_FENCING_TOKEN": "77",
        "GRAMPUS_TICK": "1767323045000",
        "GRAMPUS_TICK_DATE": "2026-01-02",
        "GRAMPUS_OUTPUT": str(bench.folder / "output"),
    }
    others = {name for name in env if not name.startswith("GRAMPUS")}
    assert others <= {
        "LANG",
        "NO_PROXY",
        "PYTHONUNBUFFERED",
        "PWD",
        "OLDPWD",
        "SHLVL",
        "_",
        "LC_CTYPE",
    }


def test_sleep_is_a_process_like_any_other(bench: Bench) -> None:
    assert bench.run(Sleep(10), direct=True).exit == 0


# Python


@pytest.mark.parametrize(
    ("expression", "encoding"),
    [
        ("{'a': [1, 2.5, None, True, 'é']}", "json"),
        ("None", "json"),
        ("(1, 2)", "pickle"),
        ("{1: 'x'}", "pickle"),
        ("float('nan')", "pickle"),
        ("{'x': {1, 2}}", "pickle"),
        ("datetime.date(2026, 1, 2)", "pickle"),
    ],
)
def test_a_result_comes_back_as_it_was(bench: Bench, expression: str, encoding: str) -> None:
    bench.module("m", f"import datetime\ndef f():\n    return {expression}\n")
    done = bench.run(Python("m:f"))
    assert done.exit == 0
    assert isinstance(done.found, Found)
    assert done.found.encoding == encoding
    import datetime

    expected = eval(expression, {"datetime": datetime})
    assert repr(done.value) == repr(expected)


def test_arguments_are_values_and_pickled_ones_stay_what_they_are(bench: Bench) -> None:
    bench.module(
        "m",
        "import shapes\n"
        "def f(n, rows, text, p):\n"
        "    assert type(p) is shapes.Point\n"
        "    return [n, rows, text, p.x]\n",
    )
    bench.module("shapes", "class Point:\n    def __init__(self): self.x = 5\n")
    made = subprocess.run(
        [sys.executable, "-c", "import shapes, pickle, sys;"
         "sys.stdout.buffer.write(pickle.dumps(shapes.Point()))"],
        cwd=bench.bundle, capture_output=True, check=True,
    ).stdout  # fmt: skip
    blob = bench.folder / "blob"
    blob.write_bytes(made)
    done = bench.run(
        Python(
            "m:f",
            {
                "n": "{{ params.n }}",
                "rows": ["{{ tasks.a.output }}"],
                "text": "n is {{ params.n }}",
                "p": "{{ tasks.b.output }}",
            },
        ),
        {"n": 7},
        {
            "a": inline([1, {"k": None}]),
            "b": Value("pickle", None, str(blob), len(made)),
        },
        after=("a", "b"),
    )
    assert done.value == [7, [[1, {"k": None}]], "n is 7", 5], done.stderr


def test_an_exception_is_shown_from_the_users_frame_on_and_named_with_its_bases(
    bench: Bench,
) -> None:
    bench.module(
        "m",
        "class Mine(KeyError):\n    pass\n"
        "def inner():\n    raise Mine('no such month')\n"
        "def f():\n    inner()\n",
    )
    done = bench.run(Python("m:f"))
    assert done.exit == 1
    assert done.error.error == "Mine: 'no such month'"
    assert done.error.exception == ("Mine", "KeyError", "LookupError", "Exception")
    lines = done.stderr.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1] == f'  File "{bench.bundle}/m.py", line 6, in f'
    assert "grampus" not in done.stderr.replace(str(bench.bundle), "")


def test_a_module_that_cannot_be_imported_says_which(bench: Bench) -> None:
    done = bench.run(Python("nothing.here:f"))
    assert "no module 'nothing'" in done.error.error
    bench.module("m", "import absent_library\ndef f(): pass\n")
    done = bench.run(Python("m:f"))
    assert done.error.error == "ModuleNotFoundError: No module named 'absent_library'"
    assert f'File "{bench.bundle}/m.py", line 1' in done.stderr
    bench.module("m2", "x = 1\n")
    assert "has no 'f'" in bench.run(Python("m2:f")).error.error
    assert "cannot be called" in bench.run(Python("m2:x")).error.error
    bench.module("m3", "def f(:\n")
    assert bench.run(Python("m3:f")).error.exception[0] == "SyntaxError"


@pytest.mark.parametrize(
    ("statement", "code", "error"),
    [
        ("sys.exit()", 0, None),
        ("sys.exit(7)", 7, "exit code 7"),
        ("sys.exit('no disk')", 1, "no disk"),
        ("raise KeyboardInterrupt", 1, "KeyboardInterrupt"),
    ],
)
def test_an_exit_is_an_exit(bench: Bench, statement: str, code: int, error: str | None) -> None:
    bench.module("m", f"import sys\ndef f():\n    {statement}\n")
    done = bench.run(Python("m:f"))
    assert done.exit == code
    if error is None:
        assert done.value is None
    else:
        assert done.error.error == error


def test_what_cannot_be_handed_on_says_so(bench: Bench) -> None:
    bench.module("m", "def f():\n    return lambda: 1\n")
    done = bench.run(Python("m:f"))
    assert done.exit == 1
    assert "cannot be pickled" in done.error.error


def test_modules_of_the_bundle_may_have_any_name_but_never_replace_ours(bench: Bench) -> None:
    bench.module("msgspec", "raise SystemExit('shadowed')\n")
    for name in ("http", "tasks"):
        bench.module(name, "def f():\n    return 'mine'\n")
        assert bench.run(Python(f"{name}:f")).value == "mine"


def test_output_is_live_and_print_without_newline_is_not_lost(bench: Bench) -> None:
    bench.module("m", "import os\ndef f():\n    print('a', end='')\n    os._exit(0)\n")
    assert bench.run(Python("m:f")).stdout == "a"


def test_a_coroutine_function_is_awaited(bench: Bench) -> None:
    bench.module("m", "async def f():\n    return 3\n")
    assert bench.run(Python("m:f")).value == 3


def test_an_interpreter_without_grampus_says_what_to_do(bench: Bench, tmp_path: Path) -> None:
    bench.module("m", "def f():\n    return 1\n")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    done = bench.run(Python("m:f"), python=str(tmp_path / "bare" / "bin" / "python"))
    assert done.exit == 1
    assert "install grampus in its environment" in done.stderr.splitlines()[-1]
    with pytest.raises(TaskFailure, match="no interpreter 'python9'"):
        bench.run(Python("m:f"), python="python9")


# HTTP


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status, kind, body = {
            "/json": (200, "application/json", b'{"a": [1]}'),
            "/text": (200, "text/plain; charset=utf-8", "é".encode()),
            "/bad-json": (200, "application/json", b"{"),
            "/teapot": (418, "text/plain", b"short and stout " * 100),
            "/moved": (302, "text/plain", b""),
        }[self.path.partition("?")[0]]
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/json")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        answer = json.dumps({"sent": body.decode(), "x": self.headers["X-Day"]}).encode()
        self.send_response(201)
        self.send_header("Content-Type", "application/problem+json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        del format, args


@pytest.fixture
def site() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_an_answer_becomes_the_result(bench: Bench, site: str) -> None:
    value = bench.run(Http(site + "/{{ params.page }}"), {"page": "json"}).value
    assert (value["status"], value["body"]) == (200, {"a": [1]})
    assert value["headers"]["content-type"] == "application/json"
    assert bench.run(Http(site + "/text")).value["body"] == "é"
    assert bench.run(Http(site + "/bad-json")).value["body"] == "{"
    assert bench.run(Http(site + "/moved")).value["status"] == 200
    assert bench.run(Http(site + "/moved", expect=(302,))).value["status"] == 302


def test_a_request_carries_values(bench: Bench, site: str) -> None:
    action = Http(site, "POST", {"X-Day": "{{ tick.date }}"}, json={"n": "{{ params.n }}"})
    value = bench.run(action, {"n": [1, 2]}).value
    assert value["status"] == 201
    assert json.loads(value["body"]["sent"]) == {"n": [1, 2]}
    assert value["body"]["x"] == "2026-01-02"


def test_an_unexpected_status_is_a_failure_that_shows_the_answer(bench: Bench, site: str) -> None:
    done = bench.run(Http(site + "/teapot?token=hidden"))
    assert done.exit == 1
    assert done.error.error.startswith(
        f"GET {site}/teapot: status 418, expected 200 to 299: short and stout"
    )
    assert len(done.error.error) < 700
    assert "hidden" not in done.stderr
    assert "UnexpectedStatus" in done.error.exception
    assert bench.run(Http(site + "/teapot", expect=(200, 418))).exit == 0


def test_no_answer_is_a_failure_by_its_name(bench: Bench) -> None:
    done = bench.run(Http("http://127.0.0.1:9/"))
    assert done.error.exception[0] == "ConnectError"
    assert "GET http://127.0.0.1:9/" in done.error.error


# SQL


def test_statements_of_a_file_run_in_one_transaction(bench: Bench) -> None:
    (bench.bundle / "load.sql").write_text(
        "-- a comment; with a semicolon\n"
        "CREATE TABLE t (id INTEGER, day TEXT, raw BLOB);\n"
        "CREATE TRIGGER g AFTER INSERT ON t BEGIN\n"
        "  UPDATE t SET day = day || ':x;' WHERE id = new.id; SELECT 1;\nEND;\n"
        "INSERT INTO t VALUES (:id, ':id; it''s', x'00ff');\n"
        "SELECT id, day, raw FROM t;\n"
    )
    url = f"sqlite:///{bench.folder}/w.db"
    done = bench.run(Sql(url, file="load.sql", params={"id": "{{ params.n }}"}), {"n": 4})
    assert done.value == [{"id": 4, "day": ":id; it's:x;", "raw": "AP8="}], done.stderr


def test_a_failed_statement_undoes_all_of_them_ddl_included(bench: Bench) -> None:
    url = f"sqlite:///{bench.folder}/w.db"
    done = bench.run(Sql(url, "CREATE TABLE t (id INTEGER); INSERT INTO absent VALUES (1)"))
    assert done.exit == 1
    assert "no such table: absent" in done.error.error
    assert "OperationalError" in done.error.exception
    assert "Traceback" not in done.stderr
    with sqlite3.connect(bench.folder / "w.db") as connection:
        assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    connection.close()


def test_rows_are_bounded_and_parameters_must_be_there(bench: Bench) -> None:
    count = (
        "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 50) SELECT n FROM c"
    )
    done = bench.run(Sql("sqlite://", count, max_rows=3))
    assert done.value == [{"n": 1}, {"n": 2}, {"n": 3}]
    assert "first 3 rows" in done.stderr
    done = bench.run(Sql("sqlite://", "SELECT :a, :b", params={"a": 1}))
    assert done.error.error == "statement 1 uses :b, which params do not have"


def test_a_missing_driver_or_dialect_says_what_to_do(bench: Bench) -> None:
    assert "not installed" in bench.run(Sql("postgresql+psycopg2://h/d", "SELECT 1")).error.error
    assert "no SQL dialect 'nosuch'" in bench.run(Sql("nosuch://h/d", "SELECT 1")).error.error
    assert "no SQLAlchemy URL" in bench.run(Sql("what is this", "SELECT 1")).error.error
    done = bench.run(Sql("sqlite://", file="../../etc/passwd"))
    assert "not inside the bundle" in done.error.error


def test_a_value_never_becomes_sql(bench: Bench) -> None:
    evil = "1); DROP TABLE t; --"
    done = bench.run(
        Sql("sqlite://", "SELECT :v AS v", params={"v": "{{ params.v }}"}), {"v": evil}
    )
    assert done.value == [{"v": evil}]


def test_the_spec_is_no_pickle_but_inputs_may_be(bench: Bench) -> None:
    bench.module("m", "def f(x):\n    return x\n")
    data = pickle.dumps({(1, 2)})
    value = Value("pickle", data, None, len(data))
    done = bench.run(
        Python("m:f", {"x": "{{ tasks.a.output }}"}), inputs={"a": value}, after=("a",)
    )
    assert done.value == {(1, 2)}
