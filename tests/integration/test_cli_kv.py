"""The metadata center on the command line and in the client; and the user page, word by word."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_node import TOKEN, Call, Node, caller, found

from grampus.cluster.commands import Compact, encode_command
from grampus.errors import Compacted, ConditionFailed, NotFound, TooLarge, WrongHistory
from grampus.sdk.client import Client
from tests.pages import comes_out, commands_of

PAGE = Path(__file__).parents[2] / "docs" / "kv.md"


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    with found(tmp_path, monkeypatch) as node:
        yield node


@pytest.fixture
def grampus(node: Node, capsysbinary: pytest.CaptureFixture[bytes]) -> Call:
    return caller(capsysbinary)


def test_a_key_is_put_read_and_deleted(grampus: Call) -> None:
    assert grampus("kv", "put", "/a/b", "one")[:2] == (0, "1\n")
    assert grampus("kv", "get", "/a/b")[:2] == (0, "one")
    code, out, _ = grampus("kv", "get", "/a/b", "-o", "json")
    assert code == 0
    assert json.loads(out) == {
        "key": "/a/b", "value": "b25l", "create_revision": 1, "mod_revision": 1, "version": 1,
        "session": 0,
    }  # fmt: skip
    assert grampus("kv", "delete", "/a/b", "-o", "json")[:2] == (0, '{\n  "revision": 2\n}\n')
    code, out, err = grampus("kv", "get", "/a/b")
    assert (code, out) == (6, "")
    assert "there is no key /a/b" in err
    assert grampus("kv", "delete", "/a/b")[0] == 6


def test_a_condition_that_fails_is_code_4(grampus: Call) -> None:
    assert grampus("kv", "put", "/a", "1", "--if-revision", "0")[:2] == (0, "1\n")
    code, out, err = grampus("kv", "put", "/a", "1", "--if-revision", "0")
    assert (code, out) == (4, "")
    assert "/a exists, at revision 1" in err
    assert grampus("kv", "put", "/a", "2", "--if-revision", "1")[0] == 0
    assert grampus("kv", "delete", "/a", "--if-revision", "1")[0] == 4
    assert grampus("kv", "delete", "/a", "--if-revision", "2")[0] == 0
    assert grampus("kv", "delete", "/a", "--if-revision", "0")[0] == 2


def test_a_value_comes_from_stdin(grampus: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    stdin = io.TextIOWrapper(io.BytesIO(b"from\nstdin"))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert grampus("kv", "put", "/a", "-")[0] == 0
    assert grampus("kv", "get", "/a")[1] == "from\nstdin"
    assert grampus("kv", "put", "k" * 600, "x")[0] == 2


def test_keys_are_listed(grampus: Call, node: Node) -> None:
    with Client() as client:
        client.kv.put("/k/1", b"\xff\xfe")
        client.kv.put("/k/2", "two\nlines " + "x" * 100)
        client.kv.put("/other", "")
    code, out, _ = grampus("kv", "range", "/k/")
    assert code == 0
    assert re.fullmatch(
        r"KEY +REVISION +VERSION +VALUE\n/k/1 +1 +1 +\(2 bytes\)\n/k/2 +2 +1 +two lines x+…\n", out
    )
    code, out, _ = grampus("kv", "range", "-o", "json")
    assert [item["key"] for item in json.loads(out)] == ["/k/1", "/k/2", "/other"]
    code, out, err = grampus("kv", "range", "/none/")
    assert (code, out) == (0, "")
    assert "no key begins with /none/" in err


def test_the_client_pages_and_never_reads_back_in_time(node: Node) -> None:
    with Client() as client:
        for n in range(7):
            client.kv.put(f"/k/{n}", str(n))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("grampus.sdk.kv.PAGE", 3)
            assert [key.key for key in client.kv.range("/k/")] == [f"/k/{n}" for n in range(7)]
            assert len(list(client.kv.range("/k/", limit=5))) == 5
        items, revision = client.kv.snapshot("/k/")
        assert (len(items), revision) == (7, 7)
        assert client.kv._seen == "h1:7"
        assert client.kv.get("/k/3", stale=True).value == b"3"
        with pytest.raises(ConditionFailed) as failed:
            client.kv.put("/k/1", "", if_revision=9)
        assert failed.value.revision == 2
        with pytest.raises(ConditionFailed) as failed:
            client.kv.put("/none", "", if_revision=9)
        assert failed.value.revision == 0
        with pytest.raises(TooLarge):
            client.kv.put("/k", b"x" * 70_000)
        for odd in ("..", ".", "a/../b", "é %?#"):
            client.kv.put(odd, odd)
            assert client.kv.get(odd).value.decode() == odd
        with pytest.raises(NotFound):
            client.kv.delete("/none")


def test_the_client_says_once_that_the_cluster_was_recovered_and_goes_on(node: Node) -> None:
    with Client() as client:
        client.kv.put("/a", "1")
        node.keys.history = "h2"
        with pytest.raises(WrongHistory, match="read everything anew"):
            client.kv.get("/a")
        assert client.kv.get("/a").value == b"1"
        assert client.kv._seen == "h2:1"
        # A server that was left behind stays left, also when it takes a write.
        client.kv._seen = f"h3:{2**32}"
        client.kv.put("/a", "2")
        for _ in range(2):
            with pytest.raises(WrongHistory):
                client.kv.get("/a")


def test_the_client_transacts(node: Node) -> None:
    with Client() as client:
        compare = [{"key": "/a", "version": 0}]
        then = [{"put": {"key": "/a", "value": b"\xff"}}, {"get": {"key": "/a"}}]
        done = client.kv.txn(compare, then)
        assert (done.succeeded, done.results[1].items[0].value) == (True, b"\xff")
        done = client.kv.txn(compare, then, [{"delete": {"prefix": "/"}}])
        assert (done.succeeded, done.results[0].deleted) == (False, 1)


def test_the_client_watches(node: Node) -> None:
    with Client() as client:
        for n in range(3):
            client.kv.put("/w/a", str(n))
        client.kv.put("/x", "")
        watch = client.kv.watch("/w/", first=2)
        assert [next(watch).revision for _ in range(2)] == [2, 3]
        later = threading.Timer(0.05, client.kv.put, ("/w/b", "new"))
        later.start()
        (change,) = next(watch).changes
        assert (change.type, change.key, change.value) == ("put", "/w/b", b"new")
        later.join()
        watch.close()  # type: ignore[attr-defined]
        node.apply([encode_command(Compact(2**60, 2**60))])
        with pytest.raises(Compacted) as told:
            next(client.kv.watch("/w/", first=2))
        assert told.value.first == 6


def test_the_python_of_the_user_page_works(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = re.findall(r"```python\n(from grampus import Client.*?)```", PAGE.read_text(), re.S)
    exec(compile(block, str(PAGE), "exec"), {})
    said = capsys.readouterr().out
    assert "/app/colour b'green'" in said
    assert said.splitlines()[-1].endswith(" True"), "the lock is held"
    with Client() as client:
        assert [key.key for key in client.kv.range()] == ["/app/colour", "/app/lock"]


def test_the_user_page_is_true(node: Node, tmp_path: Path) -> None:
    env = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "GRAMPUS_STATE": os.environ["GRAMPUS_STATE"], "HOME": str(tmp_path),
        "URL": f"{node.url}/api/v1/kv", "TOKEN": TOKEN,
        "PYTHONPATH": ":".join(sys.path),
    }  # fmt: skip
    commands = commands_of(PAGE.read_text())
    assert len(commands) > 8
    for command, wanted in commands:
        done = subprocess.run(
            ["bash", "-c", command], env=env, capture_output=True, text=True, timeout=30,
            cwd=tmp_path, check=False,
        )  # fmt: skip
        out = done.stdout + done.stderr
        assert comes_out(wanted, out), (command, out, wanted)
