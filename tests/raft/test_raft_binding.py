"""The surface: one class and three errors, described by the stub, for every Python from 3.11 on."""

from __future__ import annotations

import ast
import importlib.metadata
import inspect
import threading
import time
from pathlib import Path

import grampus_raft
import pytest
from grampus_raft import RaftNode

from tests.raft.group import Disk, Group, Member, message, voters

STUB = Path(__file__).parents[2] / "raft" / "grampus_raft.pyi"


def stub_class() -> dict[str, ast.FunctionDef]:
    tree = ast.parse(STUB.read_text())
    node = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "RaftNode")
    return {f.name: f for f in node.body if isinstance(f, ast.FunctionDef)}


def test_one_class_and_four_errors() -> None:
    names = {"RaftNode", "RaftError", "ProposalDropped", "RaftFatal", "EntriesLost"}
    assert set(grampus_raft.__all__) == names
    assert {getattr(grampus_raft, n).__module__ for n in names} == {"grampus_raft"}


def test_the_installed_module_is_the_one_of_this_tree() -> None:
    installed = Path(grampus_raft.__file__).with_name("__init__.pyi")
    assert installed.read_text() == STUB.read_text(), "build it anew: make raft"
    assert installed.with_name("py.typed").exists()


def test_the_stub_has_every_method_with_its_parameters() -> None:
    described = {n: f for n, f in stub_class().items() if n != "__init__"}
    assert set(described) == {n for n in dir(RaftNode) if not n.startswith("_")}
    for name, function in described.items():
        expected = [a.arg for a in function.args.args]
        assert list(inspect.signature(getattr(RaftNode, name)).parameters) == expected


def test_the_stub_has_the_settings_with_their_defaults() -> None:
    arguments = stub_class()["__init__"].args
    parameters = inspect.signature(RaftNode).parameters.values()
    assert [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD] == [
        a.arg for a in arguments.args[1:]
    ]
    described = {
        a.arg: eval(ast.unparse(d))
        for a, d in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        if d
    }
    assert {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY} == described


def test_one_build_serves_every_python_from_3_11_on() -> None:
    wheel = importlib.metadata.distribution("grampus-raft").read_text("WHEEL")
    assert wheel is not None
    assert "Tag: cp311-abi3-" in wheel


def test_the_class_is_final_and_has_no_attributes() -> None:
    with pytest.raises(TypeError):
        type("Sub", (RaftNode,), {})
    node = Member(1, Disk.founder(voters(1))).node
    with pytest.raises(AttributeError):
        node.something = 1  # type: ignore[attr-defined]


def test_other_threads_run_while_a_call_is_busy() -> None:
    g = Group()
    g.elect(1)
    batch = [message(type=8, to=2, sender=3, term=1)] * 300_000
    begun = threading.Event()
    span: list[float] = []

    def busy() -> None:
        begun.set()
        start = time.perf_counter()
        g[2].step(batch)
        span.extend((start, time.perf_counter()))

    thread = threading.Thread(target=busy)
    thread.start()
    begun.wait(10)
    ticks = []
    while thread.is_alive():
        ticks.append(time.perf_counter())
    thread.join(10)
    start, end = span
    # The ends of the call convert its arguments and hold the GIL; its middle must not.
    middle = [t for t in ticks if start + 0.4 * (end - start) < t < start + 0.9 * (end - start)]
    assert len(middle) > 100, f"{len(middle)} steps in the middle of {end - start:.3f} s"


def test_calls_from_several_threads_are_serialised() -> None:
    node = Group(1).elect(1)
    first = node.status()["last"] + 1
    seen: list[int] = []

    def propose() -> None:
        for _ in range(200):
            first_of_three, _ = node.propose([b"x"] * 3)
            seen.append(first_of_three)

    threads = [threading.Thread(target=propose) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(30)
    assert sorted(seen) == list(range(first, first + 2400, 3))
