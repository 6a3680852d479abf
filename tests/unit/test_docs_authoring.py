"""`docs/authoring.md`: every block of it loads, and what is said to be the same is the same."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from grampus.errors import InvalidInput
from grampus.model.workflow import Retry
from grampus.sdk.load import load

PAGES = Path(__file__).parents[2]
MANUAL = (PAGES / "docs/authoring.md").read_text()
#: Text of each block that names its file in its first line.
BLOCKS = {
    name: text
    for text, name in re.findall(r"```(?:python|yaml)\n(# (\S+)\n.*?)```", MANUAL, re.DOTALL)
}
SOUND = [name for name in BLOCKS if name != "wrong.yaml"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in BLOCKS.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "sql").mkdir()
    (tmp_path / "sql" / "store.sql").write_text("SELECT :day, :status;\n")
    (tmp_path / "steps").mkdir()
    (tmp_path / "steps" / "fetch.sh").write_text("true\n")
    return tmp_path


def test_every_block_names_its_file() -> None:
    assert len(BLOCKS) == len(re.findall(r"^```(?:python|yaml)$", MANUAL, re.MULTILINE)) > 8


@pytest.mark.parametrize("name", SOUND)
def test_the_blocks_load(folder: Path, name: str) -> None:
    (loaded,) = load(folder / name)
    assert loaded.workflow.name == Path(name).stem


def test_the_workflow_of_the_readme_loads(tmp_path: Path) -> None:
    [block] = re.findall(r"```python\n(.*?)```", (PAGES / "README.md").read_text(), re.S)
    (tmp_path / "hello.py").write_text(block)
    (loaded,) = load(tmp_path / "hello.py")
    after = {task.name: task.after for task in loaded.workflow.tasks}
    assert after["total"] == ("count", "count_2", "count_3", "count_4")
    assert after["say"] == ("total",)


def test_python_and_yaml_make_the_same_graph(folder: Path) -> None:
    (python,), (yaml,) = load(folder / "words.py"), load(folder / "words.yaml")
    plain = {"retry": Retry(), "timeout": None}
    tasks = tuple(
        task if task.name.startswith("count") else msgspec.structs.replace(task, **plain)
        for task in yaml.workflow.tasks
    )
    same = msgspec.structs.replace(yaml.workflow, tasks=tasks, bundle=python.workflow.bundle)
    assert same == python.workflow


def test_mentioning_an_output_is_waiting_for_it(folder: Path) -> None:
    (loaded,) = load(folder / "passing.py")
    after = {task.name: task.after for task in loaded.workflow.tasks}
    assert after == {"extract": (), "load": ("extract",), "say": ("load",), "pause": ("load",)}


def test_a_workflow_runs_without_a_server(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, folder / "try_it.py"], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "Grace, local"


def test_the_errors_are_those_that_are_shown(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(InvalidInput) as wrong:
        load(Path("wrong.yaml"))
    shown = [f"error: {problem}" for problem in wrong.value.problems]
    assert f"\n{chr(10).join(shown)}\n{len(shown)} errors\n" in MANUAL
