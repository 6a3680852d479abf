"""Whatever an attempt writes, however it is cut: the pieces are its text, their places true."""

from __future__ import annotations

import asyncio
import base64

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from grampus.api import paging
from grampus.api.answers import time_text
from grampus.api.auth import hosts_of
from grampus.api.logs import Cursor
from grampus.errors import InvalidInput
from grampus.model.run import AttemptState
from grampus.protocol import LogChunk, ReadLog
from grampus.runs.views import AttemptView

ATTEMPT = AttemptView(
    task="t", attempt=1, state=AttemptState.RUNNING, session=1, n=1, worker="w", started=0,
    running=None, ended=None, exit=None, error="", stdout=0, stderr=0, lease=-1,
    unreachable=None,
)  # fmt: skip
#: Bytes in which characters of all lengths, and broken ones, are frequent.
written = st.lists(
    st.one_of(st.text(max_size=8).map(str.encode), st.binary(max_size=4)), max_size=12
).map(b"".join)


@given(written, st.lists(st.integers(0, 7), max_size=40), st.booleans())
def test_pieces_are_the_text_and_lie_side_by_side(data: bytes, cuts: list[int], ends: bool) -> None:
    async def scenario() -> None:
        sizes = iter(cuts)
        given_out = 0

        async def read_log(asked: ReadLog) -> LogChunk:
            nonlocal given_out
            size = next(sizes, len(data))
            piece = data[asked.offset : asked.offset + size]
            given_out = asked.offset + len(piece)
            return LogChunk(asked.offset, piece, ends and given_out == len(data))

        cursor = Cursor(ATTEMPT, "stdout", 0)
        reads = [
            None if cursor.ended else await cursor.read("r", read_log, {})
            for _ in range(len(cuts) + 2)
        ]
        entries = [entry for entry in [*reads, cursor.rest()] if entry]
        assert "".join(e.text for e in entries) == data.decode("utf-8", "replace")
        place = 0
        for entry in entries:
            assert entry.offset == place
            assert entry.next > place
            place = entry.next
            if "\ufffd" not in entry.text:
                assert entry.next - entry.offset == len(entry.text.encode())
        assert place == len(data)

    asyncio.run(scenario())


@given(st.text(min_size=1, max_size=64), st.integers(0, 10**17))
def test_a_cursor_comes_back_as_it_was_made(name: str, seq: int) -> None:
    assert paging.read_name(paging.of_name(name)) == name
    assert paging.read_seq(paging.of_seq(seq)) == seq


@given(
    st.one_of(st.text(max_size=30), st.binary(max_size=20).map(base64.b64encode).map(bytes.decode))
)
def test_garbage_is_no_cursor(text: str) -> None:
    # How the cursors of the two lists begin.
    assume(not text.startswith(("b", "c")))
    for read in (paging.read_name, paging.read_seq):
        with pytest.raises(InvalidInput, match=r"query\.cursor"):
            read(text)


def test_cursors_of_two_lists_are_not_mixed_up() -> None:
    with pytest.raises(InvalidInput):
        paging.read_seq(paging.of_name("7"))
    with pytest.raises(InvalidInput):
        paging.read_name(paging.of_seq(7))


@given(st.integers(0, 4_000_000_000_000))
def test_times_sort_as_text(ms: int) -> None:
    assert len(time_text(ms)) == len("2026-11-21T03:52:49.123Z")
    assert time_text(ms) < time_text(ms + 1)


def test_a_time_is_utc_with_milliseconds() -> None:
    assert time_text(1_795_233_169_123) == "2026-11-21T03:52:49.123Z"
    assert time_text(0) == "1970-01-01T00:00:00.000Z"
    assert time_text(None) is None


@given(st.text(max_size=30))
def test_no_listen_address_is_too_strange_to_be_judged(listen: str) -> None:
    names = hosts_of(listen)
    assert names is None or "localhost" in names
