"""The files of a slot: caps, holes, cuts, and readers of all of them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grampus.worker.capture import (
    SlotFiles,
    Stream,
    clear_slots,
    head_of,
    position_after_cut,
    read_stream,
)

CAP = 64 * 1024


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def pattern(size: int, start: int = 0) -> bytes:
    """Bytes that tell their own place, none of them zero."""
    return bytes((start + k) % 251 + 1 for k in range(size))


def no_holes(fd: int, start: int, stop: int) -> None:
    raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))


def opened(path: Path, **options: object) -> Stream:
    stream = Stream(str(path), CAP, **options)  # type: ignore[arg-type]
    stream.open(fresh=True)
    return stream


@pytest.mark.parametrize("size", [1, CAP - 1, CAP])
def test_what_fits_is_kept_as_it_is(tmp_path: Path, size: int) -> None:
    stream = opened(tmp_path / "s")
    append(tmp_path / "s", pattern(size))
    assert stream.keep(str(tmp_path / "run" / "kept")) == size
    assert (tmp_path / "run" / "kept").read_bytes() == pattern(size)
    assert not (tmp_path / "s").exists()


def test_an_empty_file_stays_with_the_slot(tmp_path: Path) -> None:
    stream = opened(tmp_path / "s")
    assert stream.keep(str(tmp_path / "kept")) == 0
    assert (tmp_path / "s").exists()
    assert not (tmp_path / "kept").exists()


@given(steps=st.lists(st.integers(0, 3 * CAP), min_size=1, max_size=6))
def test_however_it_grows_head_and_tail_survive(
    tmp_path_factory: pytest.TempPathFactory, steps: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("stream")
    stream, path = opened(folder / "s"), folder / "s"
    total = 0
    everything = pattern(sum(steps))
    for step in steps:
        append(path, everything[total : total + step])
        total += step
        stream.watch()
        assert path.stat().st_size == total
        assert path.stat().st_blocks * 512 <= CAP + CAP // 4 + 3 * 4096
    assert stream.keep(str(folder / "kept")) == total
    if total == 0:
        return
    kept = (folder / "kept").read_bytes()
    if total <= CAP:
        assert kept == everything
    else:
        line = f"\n… {total - CAP} bytes left out …\n".encode()
        head, tail = everything[: CAP // 2], everything[-(CAP // 2) :]
        if head.endswith(b"\n"):
            line = line[1:]
        assert kept == head + line + tail


@given(
    size=st.integers(CAP * 2, CAP * 4),
    offset=st.integers(0, CAP * 4),
    limit=st.integers(1, CAP),
)
def test_a_reader_of_a_file_with_a_hole_never_sees_what_nobody_wrote(
    tmp_path_factory: pytest.TempPathFactory, size: int, offset: int, limit: int
) -> None:
    folder = tmp_path_factory.mktemp("hole")
    stream, path = opened(folder / "s"), folder / "s"
    append(path, pattern(size))
    stream.watch()
    begin, data, skipped = read_stream(str(path), offset, limit)
    assert begin == offset + skipped
    assert data == pattern(size)[begin : begin + len(data)]
    assert data or offset >= size
    assert len(data) <= limit


def test_read_from_the_beginning_gives_all_that_is_left_and_counts_the_rest(
    tmp_path: Path,
) -> None:
    stream, path = opened(tmp_path / "s"), tmp_path / "s"
    size = 10 * CAP + 17
    append(path, pattern(size))
    stream.watch()
    offset = got = left_out = 0
    while offset < size:
        offset, data, skipped = read_stream(str(path), offset, 5000)
        assert data == pattern(size)[offset : offset + len(data)]
        offset += len(data)
        got += len(data)
        left_out += skipped
    assert got + left_out == size
    assert left_out > 8 * CAP
    assert read_stream(str(path), size, 100) == (size, b"", 0)
    assert read_stream(str(path), size + 5, 100) == (size + 5, b"", 0)


def test_zeros_that_were_written_are_read(tmp_path: Path) -> None:
    path = tmp_path / "s"
    append(path, bytes(20_000))
    assert read_stream(str(path), 5, 100_000) == (5, bytes(19_995), 0)


def test_where_holes_cannot_be_punched_the_file_stays_bounded_and_says_so(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    stream, path = opened(tmp_path / "s", punch=no_holes), tmp_path / "s"
    total = 0
    for _ in range(5):
        append(path, pattern(2 * CAP, total))
        total += 2 * CAP
        stream.watch()
        assert path.stat().st_size <= CAP + CAP // 4
    append(path, b"the end")
    assert stream.keep(str(tmp_path / "kept")) == total + 7
    kept = (tmp_path / "kept").read_bytes()
    assert kept.startswith(pattern(CAP // 2))
    assert kept.endswith(f"\n… {total - CAP // 2} bytes left out …\nthe end".encode())
    assert capfd.readouterr().err.count("cannot punch holes") == 1


def test_a_program_may_truncate_its_own_output(tmp_path: Path) -> None:
    stream, path = opened(tmp_path / "s"), tmp_path / "s"
    append(path, pattern(4 * CAP))
    stream.watch()
    os.truncate(path, 0)
    append(path, pattern(3 * CAP))
    stream.watch()
    assert path.stat().st_blocks * 512 <= CAP + CAP // 4 + 3 * 4096
    assert stream.keep(str(tmp_path / "kept")) == 3 * CAP
    assert (tmp_path / "kept").read_bytes().endswith(pattern(3 * CAP)[-(CAP // 2) :])


def test_a_full_or_forbidden_target_is_told_and_the_slot_is_clean_for_the_next(
    tmp_path: Path,
) -> None:
    files = SlotFiles(str(tmp_path), 0, CAP)
    files.prepare()
    append(Path(files.stdout), b"secret of one")
    append(Path(files.output), b"a=1")
    kept = files.keep("x" * 300)
    assert (kept.stdout, kept.output, kept.small) == (0, True, b"a=1")
    assert "File name too long" in kept.error
    files.prepare()
    assert Path(files.stdout).read_bytes() == b""
    assert Path(files.output).read_bytes() == b""


def test_clearing_removes_slot_files_and_nothing_else(tmp_path: Path) -> None:
    for name in ("slot0.out", "slot12.output", "slot1.err.cut"):
        (tmp_path / name).write_text("x")
    (tmp_path / "slots").mkdir()
    (tmp_path / "slot3.output").mkdir()
    clear_slots(str(tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == ["slots"]


@given(written=st.integers(0, 10 * CAP), data=st.data())
def test_a_place_in_the_live_stream_has_its_place_in_the_finished_one(
    written: int, data: st.DataObject
) -> None:
    offset = data.draw(st.integers(0, written))
    line = len(f"\n… {written - CAP} bytes left out …\n".encode())
    size = written if written <= CAP else CAP + line
    place = position_after_cut(offset, written, size, head_of(CAP))
    half = CAP // 2
    if written <= CAP or offset <= half:
        assert place == offset
    elif offset >= written - half:
        assert size - place == written - offset
    else:
        assert half <= place <= half + line
