"""`grampus kv txn`: several keys in one revision, from a document."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_node import Call, Node, caller, found

from grampus.sdk.client import Client


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    with found(tmp_path, monkeypatch) as node:
        yield node


@pytest.fixture
def grampus(node: Node, capsysbinary: pytest.CaptureFixture[bytes]) -> Call:
    return caller(capsysbinary)


MOVE: dict[str, Any] = {
    "compare": [{"key": "/owner", "version": 0}],
    "then": [
        {"put": {"key": "/owner", "text": "é me"}},
        {"put": {"key": "/raw", "value": "/w=="}},
        {"get": {"prefix": "/"}},
    ],
    "else": [{"get": {"key": "/owner"}}],
}


def test_then_or_else_is_done_and_the_exit_code_says_which(grampus: Call, tmp_path: Path) -> None:
    file = tmp_path / "move.json"
    file.write_text(json.dumps(MOVE))
    code, out, err = grampus("kv", "txn", str(file))
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == "1"
    assert [line.split()[:3] for line in out.splitlines()[1:]] == [
        ["KEY", "REVISION", "VERSION"], ["/owner", "1", "1"], ["/raw", "1", "1"]
    ]  # fmt: skip
    code, out, err = grampus("kv", "txn", str(file))
    assert code == 4
    assert "/owner" in out
    assert err == "the comparisons do not hold: `else` was done\n"
    with Client() as client:
        assert client.kv.get("/owner").value.decode() == "é me"
        assert client.kv.get("/raw").value == b"\xff"


def test_a_document_comes_from_stdin_and_the_answer_is_one(
    grampus: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = json.dumps({"then": [{"put": {"key": "/a", "text": "1"}}]})
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    code, out, err = grampus("kv", "txn", "-o", "json")
    assert (code, err) == (0, "")
    assert json.loads(out) == {
        "revision": 1, "succeeded": True,
        "results": [{"type": "put", "deleted": 0, "items": [], "more": False}],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "this is no JSON"),
        ("\udcff", "this is no JSON"),
        ("[]", "a transaction is one object"),
        ('{"than": []}', "than: a transaction has no such part (allowed: compare, then, else)"),
        ('{"then": [1], "else": {}}', "else: it is a list of objects"),
        ('{"then": [{"put": {"key": "/a", "value": "no"}}]}', "then.0.put.value: a value comes in"),
        ('{"then": [{"put": {"key": "/a", "text": 1}}]}', "then.0.put.text: a value is a string"),
        ('{"then": [{"putt": {}}]}', "did you mean `put`"),
        ('{"compare": [{"key": "/a"}]}', "a comparison has exactly one of these"),
    ],
)
def test_a_document_that_means_nothing_is_refused(
    grampus: Call, tmp_path: Path, text: str, said: str
) -> None:
    file = tmp_path / "it.json"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    code, out, err = grampus("kv", "txn", str(file))
    assert (code, out) == (2, "")
    assert said in err
    assert grampus("kv", "txn", str(tmp_path / "none.json"))[0] == 2
