"""Logs: pieces by their place in what was written, and no way out of the folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from grampus.errors import UsageError
from grampus.protocol import LogChunk, ReadLog
from grampus.worker.capture import Stream, head_of
from grampus.worker.logs import PIECE_LIMIT, Logs
from grampus.worker.orders import Ended

RUN = "aaaaaaaaaaaa"


def ask(offset: int = 0, limit: int = 1 << 30, **other: object) -> ReadLog:
    given = {"run": RUN, "task": "t", "attempt": 1, "stream": "stdout"} | other
    return ReadLog(1, 1, offset=offset, limit=limit, **given)  # type: ignore[arg-type]


def written(folder: Path, data: bytes) -> None:
    (folder / RUN).mkdir(exist_ok=True)
    (folder / RUN / "t.1.out").write_bytes(data)


def test_a_finished_log_is_read_in_pieces_to_its_end(tmp_path: Path) -> None:
    data = bytes(range(256)) * 3000
    written(tmp_path, data)
    logs, got = Logs(tmp_path), b""
    while True:
        chunk = logs.read(ask(len(got)), None)
        assert chunk.offset == len(got)
        assert len(chunk.data) <= PIECE_LIMIT
        got += chunk.data
        if chunk.end:
            break
    assert got == data
    assert logs.read(ask(10**9), None) == LogChunk(10**9, b"", True, size=len(data))


def test_a_live_log_never_says_that_it_is_at_its_end(tmp_path: Path) -> None:
    logs = Logs(tmp_path)
    assert logs.read(ask(), 3) == LogChunk(0, b"", False)
    (tmp_path / "slot3.out").write_bytes(b"abc")
    assert logs.read(ask(1), 3) == LogChunk(1, b"bc", False, size=3)
    assert logs.read(ask(3), 3) == LogChunk(3, b"", False, size=3)


def test_what_was_never_written_is_empty(tmp_path: Path) -> None:
    assert Logs(tmp_path).read(ask(), None) == LogChunk(0, b"", True)


@pytest.mark.parametrize("start", [0, 5_000, 20_000, 40_000, 59_999])
def test_offsets_stay_true_where_the_middle_was_cut(tmp_path: Path, start: int) -> None:
    cap = 16_384
    data = b"".join(b"%09d\n" % n for n in range(6_000))
    path = tmp_path / "slot0.out"
    stream = Stream(str(path), cap)
    stream.open(fresh=True)
    path.write_bytes(data)
    target = tmp_path / RUN / "t.1.out"
    target.parent.mkdir()
    assert stream.keep(str(target)) == len(data)
    logs = Logs(tmp_path, cap)
    logs.ended(f"{RUN}/t.1", Ended(1, 0, "exit", 0, "", len(data), 0, False))
    offset, got, skipped = start, b"", 0
    for _ in range(100):
        chunk = logs.read(ask(offset, 3_000), None)
        assert chunk.offset >= offset
        assert chunk.skipped == chunk.offset - offset
        skipped += chunk.skipped
        got += chunk.data
        offset = chunk.offset + len(chunk.data)
        if chunk.end:
            break
    assert offset == len(data)
    assert got.endswith(data[max(start, len(data) - 5_000) :])
    assert got.startswith(data[start : start + 100]) == (start < head_of(cap) or start > 55_000)
    assert len(got) <= cap + 100
    assert (skipped > 0) == (start < 50_000)


@pytest.mark.parametrize(
    "evil",
    [
        {"run": "../../../etc"},
        {"run": "aaaaaaaaaaa/"},
        {"task": "../t"},
        {"task": "a/b"},
        {"task": ""},
        {"attempt": 0},
        {"attempt": -1},
        {"stream": "output"},
        {"stream": "../x"},
        {"offset": -1},
        {"limit": -1},
        {"offset": 2**63},
    ],
)
def test_names_that_are_none_are_refused(tmp_path: Path, evil: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Logs(tmp_path).read(ask(**evil), None)  # type: ignore[arg-type]


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / RUN).mkdir()
    (tmp_path / RUN / "t.1.out").symlink_to("/etc/passwd")
    with pytest.raises(OSError, match="symbolic"):
        Logs(tmp_path).read(ask(), None)


def test_forgetting_a_run_removes_its_files_and_no_others(tmp_path: Path) -> None:
    written(tmp_path, b"x")
    (tmp_path / "slot0.out").touch()
    outside = tmp_path.parent / "outside"
    outside.mkdir(exist_ok=True)
    Logs(tmp_path).forget(["../outside", "", ".", RUN, "bbbbbbbbbbbb"])
    assert outside.is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["slot0.out"]
