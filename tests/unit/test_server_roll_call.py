"""Who counts as being there, before a survivor goes on alone."""

from __future__ import annotations

import asyncio
from pathlib import Path

from grampus.model.member import Member
from grampus.server.arrival import Place
from grampus.server.roll_call import _answers
from tests.looped import looped
from tests.ports import free_port


def place(folder: Path) -> Place:
    return Place(folder, "c1", "h1", Member(1, "a", "127.0.0.1", 1, 2), "secret", False)


@looped
async def test_who_hangs_up_before_a_word_is_there(tmp_path: Path) -> None:
    """As one does who finds that a certificate has ended."""

    def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    port = free_port()
    async with await asyncio.start_server(hang_up, "127.0.0.1", port):
        assert await _answers(place(tmp_path), Member(2, "b", "127.0.0.1", 3, port))


@looped
async def test_where_nobody_listens_nobody_is(tmp_path: Path) -> None:
    member = Member(2, "b", "127.0.0.1", 3, free_port())
    assert not await _answers(place(tmp_path), member)
