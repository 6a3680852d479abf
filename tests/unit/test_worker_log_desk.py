"""A piece of a log is of the attempt that was asked for, whoever has its slot by then."""

from __future__ import annotations

import asyncio
from pathlib import Path

from grampus.protocol import LogChunk, ReadLog
from grampus.worker.log_desk import LogDesk
from grampus.worker.logs import Logs

RUN = "aaaaaaaaaaaa"
ASKED = ReadLog(1, 1, RUN, "a", 1, "stdout", 0, 100)


def test_what_was_read_while_the_attempt_left_its_slot_is_read_again(tmp_path: Path) -> None:
    (tmp_path / "slot0.out").write_text("of another")
    folder = tmp_path / RUN
    folder.mkdir()
    (folder / "a.1.out").write_text("its own")
    slots: list[int | None] = [0, None, None]
    desk = LogDesk(Logs(tmp_path), lambda asked: slots.pop(0), lambda chore: None)
    assert asyncio.run(desk.answer(ASKED)) == LogChunk(0, b"its own", True, 0, 7)
    assert slots == []
