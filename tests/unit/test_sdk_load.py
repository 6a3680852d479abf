"""From files to workflows with bundles: what travels, what does not, and what is told."""

from __future__ import annotations

import io
import os
import stat
import sys
import zipfile
from pathlib import Path

import pytest

from grampus import ids, task, workflow
from grampus.errors import InvalidInput, UsageError
from grampus.model.workflow import Python
from grampus.sdk.bundle import BUNDLE_LIMIT
from grampus.sdk.load import Loaded, load, load_workflow, to_yaml

FLOW = """\
from grampus import shell, sql, task, workflow

@task
def first(n: int) -> int:
    import lazy
    return n

@workflow
def flow(n: int = 1):
    first(n)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def names(loaded: Loaded) -> list[str]:
    assert loaded.bundle is not None
    assert loaded.workflow.bundle == ids.content_hash(loaded.bundle)
    return zipfile.ZipFile(io.BytesIO(loaded.bundle)).namelist()


def wrong(path: Path | str) -> list[str]:
    with pytest.raises(InvalidInput) as caught:
        load(Path(path))
    return [str(problem) for problem in caught.value.problems]


def test_a_python_file_travels_with_the_modules_that_it_imports(folder: Path) -> None:
    before = set(sys.modules)
    write(
        folder,
        flow_dot_py=FLOW.replace("import shell", "import shell\nimport steps.one\nimport json\n#"),
        lazy_dot_py="from other import x",
        other_dot_py="x = 1",
        unused_dot_py="",
        data_dot_csv="",
    )
    (folder / "flow.py").write_text("import steps.one\nimport json\n" + FLOW)
    write(folder / "steps", one_dot_py="", style_dot_css="", sub__two_dot_py="import deep")
    write(folder, deep_dot_py="", steps___dot_hidden="")
    (folder / "steps" / "__init__.py").write_text("")
    (folder / "steps" / "__pycache__").mkdir()
    (folder / "steps" / "__pycache__" / "one.pyc").write_text("")
    (loaded,) = load(folder / "flow.py")
    assert names(loaded) == [
        *("deep.py", "flow.py", "lazy.py", "other.py"),
        *("steps/__init__.py", "steps/one.py", "steps/style.css", "steps/sub/two.py"),
    ]
    assert loaded.workflow.tasks[0].action == Python("flow:first", {"n": "{{ params.n }}"})
    assert loaded.source == folder / "flow.py"
    assert not {"flow", "steps", "lazy", "deep"} & (set(sys.modules) - before)
    assert str(folder) not in sys.path
    assert not (folder / "__pycache__").exists()


def test_files_that_tasks_name_travel(folder: Path) -> None:
    write(
        folder,
        run_dot_sh="#!/bin/sh",
        clean_dot_py="import tool",
        tool_dot_py="",
        load_dot_sql="select 1",
        train_dot_py="import tool\ndef main(rows): pass",
        pkg__mod_dot_py="",
        data__a_dot_csv="",
        extra__b_dot_txt="",
        not_dot_txt="",
        flow_dot_yaml="""\
workflow: w
include: ["extra/*"]
tasks:
  a: {shell: "./run.sh --in=data/a.csv /etc/passwd ../x && python 'clean.py' nothing.txt"}
  b: {sql: {url: "sqlite://", file: load.sql}}
  c: {python: "train:main"}
  d: {shell: "python -m pkg.mod"}
""",
    )
    (folder / "run.sh").chmod(0o700)
    (loaded,) = load(Path("flow.yaml"))
    assert names(loaded) == [
        *("clean.py", "data/a.csv", "extra/b.txt", "load.sql", "pkg/mod.py", "run.sh"),
        *("tool.py", "train.py"),
    ]
    assert loaded.bundle is not None
    entries = zipfile.ZipFile(io.BytesIO(loaded.bundle)).infolist()
    modes = {entry.filename: stat.S_IMODE(entry.external_attr >> 16) for entry in entries}
    assert (modes["run.sh"], modes["load.sql"]) == (0o755, 0o644)


def test_a_workflow_without_files_has_no_bundle(folder: Path) -> None:
    write(folder, f_dot_yaml="workflow: w\ntasks: {a: {shell: 'echo hello > x'}, b: {sleep: 1}}")
    (loaded,) = load(folder / "f.yaml")
    assert loaded.bundle is None
    assert loaded.workflow.bundle is None
    assert to_yaml(loaded.workflow).startswith("workflow: w\n")


def test_the_same_files_give_the_same_bytes(folder: Path) -> None:
    write(folder, flow_dot_py=FLOW, lazy_dot_py="")
    (before,) = load(folder / "flow.py")
    os.utime(folder / "flow.py", (1, 1))
    (folder / "lazy.py").chmod(0o600)
    (after,) = load(folder / "flow.py")
    assert before == after
    (folder / "lazy.py").write_text("x = 2")
    (changed,) = load(folder / "flow.py")
    assert changed.workflow.bundle != before.workflow.bundle


def test_links_that_leave_the_folder_are_refused(folder: Path, tmp_path_factory: object) -> None:
    inside = folder / "inside"
    write(inside, flow_dot_py="import lazy\n" + FLOW, real_dot_py="x = 1")
    (folder / "secret.py").write_text("x = 1")
    (inside / "lazy.py").symlink_to("real.py")
    assert names(load(inside / "flow.py")[0]) == ["flow.py", "lazy.py"]
    (inside / "lazy.py").unlink()
    (inside / "lazy.py").symlink_to("../secret.py")
    assert wrong(inside / "flow.py") == [
        "inside/flow.py: lazy.py is outside of the folder " + str(inside) + ": only files below "
        "it can travel"
    ]
    write(
        inside, f_dot_yaml="workflow: w\ninclude: ['../*']\ntasks: {a: {shell: 'cat ../secret.py'}}"
    )
    (problem,) = wrong(inside / "f.yaml")
    assert "include: leaves the folder (found '../*'" in problem


def test_a_pipe_is_not_read(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    os.mkfifo(folder / "f.yaml")
    write(folder, g_dot_yaml="workflow: w\ninclude: ['p*']\ntasks: {a: {shell: 'cat pipe'}}")
    assert load(folder / "g.yaml")[0].bundle is None
    assert wrong(folder / "f.yaml") == ["f.yaml: is no regular file"]


def test_a_bundle_that_is_too_large_names_its_largest_files(folder: Path) -> None:
    write(folder, f_dot_yaml="workflow: w\ninclude: ['*.bin']\ntasks: {a: {shell: 'true'}}")
    for name, share in (("a", 2), ("b", 3), ("c", 4), ("d", 5)):
        with (folder / f"{name}.bin").open("wb") as file:
            file.truncate(BUNDLE_LIMIT // share)
    (problem,) = wrong(folder / "f.yaml")
    assert "The largest files: a.bin (8.0 MiB), b.bin (5.3 MiB), c.bin (4.0 MiB)" in problem
    assert "`include`" in problem
    assert "allowed: 16 MiB" in problem


def test_a_folder_travels_whole_and_all_its_workflows_are_read(folder: Path) -> None:
    write(
        folder,
        a_dot_py=FLOW.replace("def flow", "def one"),
        b_dot_yaml="workflow: two\ntasks: {a: {shell: 'true'}}",
        script_dot_py="raise SystemExit('not to be run')",
        other_dot_yaml="key: value",
        data__x_dot_csv="",
        venv__lib_dot_py="",
        env__pyvenv_dot_cfg="",
        env__lib_dot_py="",
        node_modules__x_dot_js="",
    )
    (folder / ".env").write_text("SECRET=1")
    loaded = load(folder)
    assert [each.workflow.name for each in loaded] == ["one", "two"]
    expected = ["a.py", "b.yaml", "data/x.csv", "other.yaml", "script.py"]
    assert [names(each) for each in loaded] == [expected, expected]
    (empty := folder / "empty").mkdir()
    assert wrong(empty) == [
        "empty: no file of this folder declares a workflow (only those at its top are read)"
    ]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("f.py", "x = 1", "f.py: declares no workflow: put @workflow on a function"),
        ("f.py", "", "f.py: declares no workflow"),
        ("f.py", "def f(:\n", "f.py:1: SyntaxError: "),
        ("f.py", "x = 1\nif x:\ny = 2", "f.py:3: IndentationError: "),
        ("f.py", "\n\n1 / 0", "f.py:3: cannot be imported: ZeroDivisionError: division by zero"),
        ("f.py", "\nimport nowhere_at_all", "f.py:2: cannot be imported: ModuleNotFoundError: "),
        ("f.py", "import helper", "helper.py:2: cannot be imported: RuntimeError: boom"),
        ("f.py", "import broken", "broken.py:1: cannot be imported: SyntaxError: "),
        ("f.py", "raise SystemExit(3)", "f.py: ends the process while it is imported"),
        ("f.py", "x = '\0'", "f.py: "),
        ("f.py", "# coding: latin-99\n", "f.py: SyntaxError: "),
        ("json.py", FLOW, "json.py: a file of this name hides the module `json`: rename it"),
        ("grampus.py", FLOW, "grampus.py: a file of this name hides"),
        ("my-flow.py", FLOW, "my-flow.py: `my-flow` cannot be imported: rename the file"),
        ("f.txt", "", "f.txt: is not read as a workflow (allowed: a file that ends with .py"),
        ("f.yaml", "a: \xff", "f.yaml: cannot be read: "),
        (
            "f.yaml",
            "workflow: w\ntasks: {a: {python: 'helpr:f'}}",
            "f.yaml:1: tasks.a.python.call: "
            "there is no module `helpr` beside the workflow's file (did you mean `helper`?)",
        ),
        (
            "f.yaml",
            "workflow: w\ntasks: {a: {python: 'helper:fuction'}}",
            "f.yaml:1: tasks.a.python.call: module `helper` defines no `fuction` (did you mean",
        ),
        (
            "f.yaml",
            "workflow: w\ntasks: {a: {sql: {url: 'x:', file: q.sqll}}}",
            "f.yaml:1: tasks.a.sql.file: there is no file q.sqll beside the workflow's (did you",
        ),
        (
            "f.yaml",
            "workflow: w\ninclude: '*.nope'\ntasks: {a: {sleep: 1}}",
            "f.yaml:1: include: matches no file (found '*.nope')",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_told(
    folder: Path, name: str, text: str, expected: str
) -> None:
    write(
        folder,
        helper_dot_py="def function(): pass\nraise RuntimeError('boom')",
        broken_dot_py="x = (",
        q_dot_sql="",
    )
    (folder / name).write_bytes(text.encode("latin-1"))
    (problem,) = wrong(name)
    assert problem.startswith(expected)


def test_a_missing_file_is_told(folder: Path) -> None:
    assert wrong("nope.yaml") == ["nope.yaml: there is no such file"]


def test_all_problems_of_a_python_file_come_in_the_order_of_lines(folder: Path) -> None:
    text = """\
from grampus import Retry, cron, shell, task, workflow

@task(timeout="soon")
def a(x): ...

@workflow(schedule=cron("0 99 * * *"))
def second():
    for n in range(3):
        a(n)
    shell("{{ params.x }}")

@workflow
def first(n: int):
    if n > 3:
        a(n)
"""
    (folder / "f.py").write_text(text)
    found = wrong("f.py")
    assert [problem.split(": ")[0] for problem in found] == [
        "f.py:6",
        "f.py:9",
        "f.py:10",
        "f.py:14",
    ]
    assert "schedule.cron: bad hour" in found[0]
    assert "tasks.a.timeout: cannot be used (found 'soon'" in found[1]
    assert "tasks.shell.shell: unknown param `x` (allowed: the workflow has no params)" in found[2]
    assert "a param cannot decide an `if`" in found[3]


def test_several_workflows_of_a_file_are_loaded_but_not_imported_ones(folder: Path) -> None:
    write(folder, other_dot_py=FLOW.replace("def flow", "def elsewhere"), lazy_dot_py="")
    (folder / "f.py").write_text(
        "from other import elsewhere, first\nfrom grampus import workflow\n"
        "@workflow\ndef one(): first(1)\n@workflow(name='two')\ndef x(): first(2)\nalso = one\n"
    )
    loaded = load(folder / "f.py")
    assert [each.workflow.name for each in loaded] == ["one", "two"]
    action = loaded[0].workflow.tasks[0].action
    assert isinstance(action, Python)
    assert action.call == "other:first"
    (folder / "f.py").write_text(
        "from grampus import sleep, workflow\n"
        "@workflow\ndef one(): sleep(1)\n@workflow(name='one')\ndef x(): sleep(2)\n"
    )
    assert wrong("f.py") == ["f.py: workflow: the workflow `one` is declared twice"]


def test_modules_of_the_same_name_in_other_folders_do_not_mix(folder: Path) -> None:
    for name in ("a", "b"):
        write(folder / name, flow_dot_py=f"import steps\n{FLOW}", steps_dot_py=f"NAME = '{name}'")
        text = (folder / name / "flow.py").read_text()
        (folder / name / "flow.py").write_text(text.replace("first(n)", "first(len(steps.NAME))"))
    (folder / "b" / "steps.py").write_text("NAME = 'bbb'")
    calls = [load(folder / name / "flow.py")[0].workflow.tasks[0].action for name in ("a", "b")]
    assert [call.args for call in calls if isinstance(call, Python)] == [{"n": 1}, {"n": 3}]


def test_what_a_file_prints_does_not_get_onto_stdout(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder, flow_dot_py="print('hello')\n" + FLOW, lazy_dot_py="")
    load(folder / "flow.py")
    found = capsys.readouterr()
    assert (found.out, found.err) == ("", "hello\n")


@task
def here(n: int) -> int:
    return n


@workflow
def of_this_file(n: int = 2) -> None:
    here(n)


def test_a_workflow_function_is_loaded_with_its_file() -> None:
    loaded = load_workflow(of_this_file)
    assert Path(__file__).name in names(loaded)
    with pytest.raises(UsageError, match="is no workflow"):
        load_workflow(here)


def test_a_file_name_that_is_no_text_is_told(folder: Path) -> None:
    write(folder, **{"flow.yaml": "workflow: w\ntasks: {a: {shell: 'true'}}\n"})
    with open(os.fsencode(folder) + b"/bad\xff.txt", "w"):
        pass
    (problem,) = wrong(folder)
    assert "the name bad\\udcff.txt is not UTF-8" in problem


@pytest.mark.parametrize("head", ["async def w():\n    pass", "def w():\n    yield 1"])
def test_a_workflow_function_is_plain(folder: Path, head: str) -> None:
    write(folder, **{"flow.py": f"from grampus import workflow\n@workflow\n{head}\n"})
    (problem,) = wrong("flow.py")
    assert "a workflow is a plain function" in problem


def test_a_file_below_a_file_is_not_there(folder: Path) -> None:
    write(folder, **{"flow.py": ""})
    assert wrong("flow.py/x.py") == ["flow.py/x.py: there is no such file"]
