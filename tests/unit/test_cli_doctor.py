"""`grampus doctor`: every line says ok, warn or fail and what to do; a fail is the exit code 1."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import msgspec
import pytest

from grampus.cli import checkup
from grampus.cli.checkup import check_machine, probe
from grampus.cli.finding import Finding
from grampus.cli.main import main
from grampus.config import load_config
from grampus.sdk.discovery import publish


def machine(tmp_path: Path, **flags: object) -> dict[str, Finding]:
    env = {"HOME": str(tmp_path)}
    config = load_config({"data": str(tmp_path / "data"), **flags}, env)
    return {each.name: each for each in check_machine(config)}


def test_it_looks_and_leaves_nothing_behind(tmp_path: Path) -> None:
    found = machine(tmp_path, listen="127.0.0.1:0")
    assert list(found) == [
        *("versions", "kernel", "containment", "pid namespaces", "user namespaces", "cgroup"),
        *("ptrace", "warm python", "clock", "disk", "fsync", "open files", "node", "ports"),
    ]
    assert list(tmp_path.iterdir()) == []
    assert found["disk"].state in ("ok", "warn")
    assert found["containment"].found.split(":")[0] in ("pid-namespace", "cgroup", "subreaper")
    assert all(each.advice for each in found.values() if each.state != "ok")


def test_a_port_that_is_taken_fails_and_names_it(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        finding = machine(tmp_path, listen=f"127.0.0.1:{min(port, 65534)}")["ports"]
    assert (finding.state, str(port) in finding.found) == ("fail", True)
    assert "--listen" in finding.advice


def test_a_node_elsewhere_is_named(tmp_path: Path) -> None:
    assert machine(tmp_path)["node"].found.startswith("none of this user at ")
    publish(tmp_path / ".local/state/grampus", "http://127.0.0.1:18999", "t0k", os.getpid())
    found = machine(tmp_path)["node"]
    assert found.found.endswith("; at http://127.0.0.1:18999")
    assert "--listen" in found.advice


class Forbidden:
    name = "forbidden"

    def __init__(self, where: str) -> None:
        self.where = where

    def fork(self, slot: int) -> int:
        import os

        if self.where == "fork":
            raise PermissionError(1, "no such luck")
        return os.fork()

    def enter(self) -> None:
        if self.where == "enter":
            raise PermissionError(1, "not in here")

    def signal(self, number: int) -> None:
        raise AssertionError("nothing runs")

    def empty(self) -> bool:
        return self.where != "empty"

    def end(self, slot: int) -> bool:
        raise AssertionError("nothing was left")


def test_a_probe_tells_where_it_fails() -> None:
    assert probe(Forbidden("nowhere")) == ""
    assert probe(Forbidden("fork")) == "no such luck"
    assert probe(Forbidden("enter")) == "not in here"
    assert probe(Forbidden("empty")) == "it ends at once"


def test_without_namespaces_it_warns_and_says_what_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkup.PidNamespace, "fork", Forbidden("fork").fork)
    monkeypatch.setattr(checkup.cgroup, "_homes", list)
    found = machine(tmp_path, listen="127.0.0.1:0")
    assert (found["containment"].state, found["containment"].found) == ("warn", "subreaper")
    assert "no such luck" in found["pid namespaces"].found
    assert "no cgroup v2 is mounted" in found["cgroup"].found
    assert found["warm python"].state == "warn"


def test_without_namespaces_a_cgroup_is_as_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkup.PidNamespace, "fork", Forbidden("fork").fork)
    monkeypatch.setattr(checkup, "probe_cgroup", lambda: "")
    monkeypatch.setattr(checkup.cgroup, "path", lambda _: "/sys/fs/cgroup/x/grampus-")
    found = machine(tmp_path, listen="127.0.0.1:0")
    assert found["containment"].state == "ok"
    assert found["containment"].found.startswith("cgroup: ")
    assert found["cgroup"].found == "v2 can be used, in /sys/fs/cgroup/x"


def test_json_is_one_document_and_a_failure_leaves_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = min(taken.getsockname()[1], 65534)
        with pytest.raises(SystemExit) as left:
            main(["doctor", "--listen", f"127.0.0.1:{port}", "-o", "json"])
    assert left.value.code == 1
    findings = msgspec.json.decode(capsys.readouterr().out, type=list[Finding])
    assert [each.name for each in findings if each.state == "fail"] == ["ports"]
