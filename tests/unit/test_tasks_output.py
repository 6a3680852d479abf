"""What may stand in `$GRAMPUS_OUTPUT`, and what is said of the rest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from grampus.tasks.output import (
    SHELL_LIMIT,
    Found,
    FoundError,
    Malformed,
    find,
    write_error,
    write_value,
)


def read(path: Path, data: bytes | None, shell: bool = True) -> Found | FoundError | None:
    if data is not None:
        path.write_bytes(data)
    with path.open("rb") as file:
        return find(file, shell)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("rows=12\n", {"rows": "12"}),
        ("a=1\nb=x=y\n\na=2", {"a": "2", "b": "x=y"}),
        ("a=\r\nb= spaced \r\n", {"a": "", "b": " spaced "}),
        (' {"rows": 12, "deep": [null, {"é": 1.5}]}\n', {"rows": 12, "deep": [None, {"é": 1.5}]}),
        ("{}", {}),
    ],
)
def test_lines_or_one_object_become_an_object(tmp_path: Path, text: str, value: object) -> None:
    found = read(tmp_path / "o", text.encode())
    assert isinstance(found, Found)
    assert found.data is not None
    assert json.loads(found.data) == value
    assert found.size == len(found.data)


@pytest.mark.parametrize("blank", [b"", b"\n \n"])
def test_nothing_is_nothing(tmp_path: Path, blank: bytes) -> None:
    assert read(tmp_path / "o", blank) is None


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"a=1\nwhat is this\n", "line 2: 'what is this'"),
        (b"1a=2", "line 1"),
        (b"=x", "line 1"),
        (b"a=1\nb=\xff\n", "line 2: not UTF-8"),
        (b'{"a": 1,\n "b" 2}', "line 2: not one JSON object"),
        (b'{"a": 1}\n{"b": 2}', "line 2: not one JSON object"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b"a=" + b"x" * SHELL_LIMIT, "may have"),
        (b"\0grampus pickle\ncos\nsystem\n.", "not for tasks to write"),
        (b"\0grampus json\n1", "not for tasks to write"),
        (b"{" + b'"a":{' * 50_000, "not one JSON object"),
    ],
)
def test_what_is_malformed_is_named(tmp_path: Path, data: bytes, said: str) -> None:
    with pytest.raises(Malformed, match=said.replace("(", r"\(")):
        read(tmp_path / "o", data)


def test_the_runner_writes_values_and_errors(tmp_path: Path) -> None:
    path = tmp_path / "o"
    write_value(str(path), "pickle", b"\n\0x")
    found = read(path, None, shell=False)
    assert isinstance(found, Found)
    assert (found.encoding, found.size) == ("pickle", 3)
    assert path.read_bytes()[found.offset :] == b"\n\0x"
    write_error(str(path), "no\ngood" + "x" * 9_000, ("A", "B"))
    error = read(path, None, shell=True)
    assert isinstance(error, FoundError)
    assert error.error.startswith("no\ngood")
    assert error.exception == ("A", "B")


@pytest.mark.parametrize(
    "data", [b"a=1", b"", b"\0grampus what\n", b"\0grampus json", b"\0grampus error\n{"]
)
def test_what_is_not_the_runners_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(Malformed):
        read(tmp_path / "o", data, shell=False)
