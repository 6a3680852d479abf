"""Server-sent events as they are read."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grampus.errors import ProtocolError
from grampus.sdk import sse
from grampus.sdk.sse import EventParser, ServerEvent


def test_an_event_has_id_type_and_data() -> None:
    events = EventParser().feed(b"id: 7\nevent: task.ready\ndata: {}\n\n")
    assert events == [ServerEvent("7", "task.ready", "{}")]


def test_the_id_stays_until_another_one_comes() -> None:
    events = EventParser().feed(b"id: 7\ndata: a\n\ndata: b\n\nid: 8\ndata: c\n\n")
    assert [e.id for e in events] == ["7", "7", "8"]


def test_comments_unknown_fields_and_empty_events_give_nothing() -> None:
    assert EventParser().feed(b": still here\n\nretry: 10\n\nevent: x\n\n\n\n") == []


def test_data_of_several_lines_is_one_text() -> None:
    (event,) = EventParser().feed(b"data: a\ndata\ndata:  b\n\n")
    assert event.data == "a\n\n b"


def test_what_is_cut_off_is_no_event() -> None:
    parser = EventParser()
    assert parser.feed(b"id: 9\ndata: whole\n") == []
    assert parser.feed(b"\n") == [ServerEvent("9", "message", "whole")]


def test_an_event_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "EVENT_LIMIT", 100)
    with pytest.raises(ProtocolError):
        EventParser().feed(b"data: " + b"x" * 200)
    parser = EventParser()
    pieces = [b"data: xxxxx\n"] * 50
    with pytest.raises(ProtocolError):
        deque(map(parser.feed, pieces), maxlen=0)


def test_many_small_events_are_no_large_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "EVENT_LIMIT", 100)
    assert len(EventParser().feed(b"data: xxxxx\n\n" * 100)) == 100


@given(st.lists(st.integers(1, 12)), st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_how_the_bytes_are_cut_changes_nothing(sizes: list[int], end: bytes) -> None:
    body = b"\xef\xbb\xbfid: 1\nevent: e\ndata: \xc3\xa9\n\n: c\n\ndata: two\ndata: 2\n\n"
    body = body.replace(b"\n", end) + b": end\n"
    parser, events, at = EventParser(), [], 0
    for size in [*sizes, len(body)]:
        events += parser.feed(body[at : at + size])
        at += size
    assert events == [ServerEvent("1", "e", "é"), ServerEvent("1", "message", "two\n2")]
