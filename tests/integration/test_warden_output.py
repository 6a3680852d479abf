"""Attempts that write more than their cap: the disk does not suffer, and readers keep up."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest
from warden_ground import KINDS, Ground, play

from grampus.worker.capture import head_of, position_after_cut, read_stream
from grampus.worker.orders import Ended

both = pytest.mark.parametrize("kind", KINDS)
CAP = 1 << 20


def disk(path: Path) -> int:
    try:
        return path.stat().st_blocks * 512
    except FileNotFoundError:
        return 0


@both
def test_three_hundred_megabytes_become_head_one_line_and_tail(kind: str, tmp_path: Path) -> None:
    total = 300 << 20

    async def story(ground: Ground) -> None:
        ground.sh(1, f"echo first; head -c {total} /dev/zero; echo; echo last", timeout=60_000)
        end = await ground.ended(1, 40)
        written = total + len("first\n\nlast\n")
        assert (end.cause, end.exit, end.stdout, end.stderr) == ("exit", 0, written, 0)
        data = ground.file(1, "out").read_bytes()
        half = CAP // 2
        line = f"\n… {written - CAP} bytes left out …\n".encode()
        assert data[:half] == b"first\n" + bytes(half - 6)
        assert data[half : half + len(line)] == line
        assert data[half + len(line) :] == bytes(half - 6) + b"\nlast\n"
        assert disk(ground.file(1, "out")) <= CAP + 8192
        ground.sh(2, "echo small")
        assert (await ground.ended(2)).stdout == 6
        assert ground.file(2, "out").read_text() == "small\n"

    play(story, tmp_path, kind, slots=1, cap=CAP)


@both
def test_a_live_reader_follows_a_writer_through_the_hole_to_the_end(
    kind: str, tmp_path: Path
) -> None:
    # Numbered lines of 16 bytes, faster than the reader: what it gets is true at its place.
    program = (
        "import os, time\n"
        "for block in range(60):\n"
        "    lines = [b'%015d\\n' % (block * 16384 + k) for k in range(16384)]\n"
        "    os.write(1, b''.join(lines)); time.sleep(0.02)\n"
    )
    total = 60 * 16384 * 16

    async def story(ground: Ground) -> None:
        ground.launch(1, sys.executable, "-S", "-c", program, timeout=60_000)
        path = str(ground.live(await ground.slot_of(1)))
        offset = left_out = most = 0
        while not ground.count(Ended, 1):
            try:
                begin, data, skipped = read_stream(path, offset, 16 * 512)
            except FileNotFoundError:
                break  # It has its final name already.
            assert begin == offset + skipped
            assert begin % 16 == 0
            for k in range(0, len(data) - 15, 16):
                assert data[k : k + 16] == b"%015d\n" % ((begin + k) // 16)
            offset, left_out = begin + len(data) // 16 * 16, left_out + skipped
            most = max(most, disk(Path(path)))
            await asyncio.sleep(0.001)
        end = await ground.ended(1)
        assert (end.exit, end.stdout) == (0, total)
        assert left_out > 0
        assert most < total // 2
        finished = ground.file(1, "out")
        size = finished.stat().st_size
        place = position_after_cut(offset, end.stdout, size, head_of(CAP))
        _, rest, _ = read_stream(str(finished), place, 2 * CAP)
        assert rest[-16:] == b"%015d\n" % (total // 16 - 1)
        if place > head_of(CAP):
            assert rest[:16] == b"%015d\n" % (offset // 16)

    play(story, tmp_path, kind, slots=1, cap=CAP)


@both
def test_the_disk_stays_bounded_while_both_streams_are_flooded(kind: str, tmp_path: Path) -> None:
    async def story(ground: Ground) -> None:
        ground.sh(1, "timeout 0.6 yes out & timeout 0.6 yes err >&2; wait; exit 9", timeout=20_000)
        slot = await ground.slot_of(1)
        most = 0
        while not ground.count(Ended, 1):
            most = max(most, *(disk(ground.live(slot, s)) for s in ("out", "err")))
            await asyncio.sleep(0.002)
        end = await ground.ended(1)
        assert end.exit == 9
        assert min(end.stdout, end.stderr) > 4 * CAP
        assert most < max(end.stdout, end.stderr) // 2
        for suffix, word in (("out", b"out"), ("err", b"err")):
            data = ground.file(1, suffix).read_bytes()
            assert len(data) < CAP + 100
            assert set(data.replace(word, b"").split()) - {b"bytes", b"left"}
            assert data.endswith(word + b"\n")

    play(story, tmp_path, kind, cap=CAP)


@both
def test_what_is_written_by_a_daemon_after_the_main_process_is_kept_too(
    kind: str, tmp_path: Path
) -> None:
    async def story(ground: Ground) -> None:
        ground.sh(1, "(while :; do echo late; done) & sleep 0.05; exit 0")
        end = await ground.ended(1)
        assert end.exit == 0
        path = ground.file(1, "out")
        if end.stdout <= CAP:
            assert path.stat().st_size == end.stdout
        before = os.stat(path)
        ground.sh(2, "true")
        await ground.ended(2)
        assert os.stat(path) == before

    play(story, tmp_path, kind, cap=CAP)
