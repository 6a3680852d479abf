"""However a stream is cut, the same frames come out; garbage gives one kind of error only."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from grampus.errors import ProtocolError
from grampus.protocol import Message
from grampus.rpc.codec import Codec
from grampus.rpc.frames import FrameReader, frame

LIMIT = 64
CODEC = Codec[Message](Message)


@st.composite
def cut(draw: st.DrawFn, stream: bytes) -> list[bytes]:
    ends = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    return [stream[a:b] for a, b in zip([0, *ends], [*ends, len(stream)], strict=True)]


@given(st.data(), st.lists(st.binary(max_size=LIMIT), max_size=20))
def test_any_chunking_gives_the_same_frames(data: st.DataObject, payloads: list[bytes]) -> None:
    reader = FrameReader(LIMIT)
    got: list[bytes] = []
    for chunk in data.draw(cut(b"".join(map(frame, payloads)))):
        got += reader.feed(chunk)
    assert got == payloads
    assert reader.pending == 0


@given(st.data(), st.lists(st.binary(max_size=LIMIT), min_size=1, max_size=20))
def test_frames_taken_a_few_at_a_time_are_the_same_frames(
    data: st.DataObject, payloads: list[bytes]
) -> None:
    reader = FrameReader(LIMIT)
    got: list[bytes] = []
    for chunk in data.draw(cut(b"".join(map(frame, payloads)))):
        most = data.draw(st.integers(1, 3))
        part = reader.feed(chunk, most=most)
        assert len(part) <= most
        got += part
    while part := reader.feed(b"", most=1):
        got += part
    assert got == payloads


@given(
    st.data(),
    st.lists(st.binary(max_size=LIMIT), max_size=5),
    st.integers(LIMIT + 1, 2**32 - 1),
)
def test_a_frame_over_the_limit_is_refused_at_its_header_in_any_chunking(
    data: st.DataObject, before: list[bytes], length: int
) -> None:
    header = length.to_bytes(4, "big")
    reader = FrameReader(LIMIT)
    raised = False
    for chunk in data.draw(cut(b"".join(map(frame, before)) + header)):
        try:
            reader.feed(chunk)
        except ProtocolError:
            raised = True
            assert reader.pending == 0
    assert raised


@given(st.binary(max_size=300), st.integers(1, 40))
def test_garbage_never_raises_anything_but_a_protocol_error_and_never_piles_up(
    garbage: bytes, size: int
) -> None:
    reader = FrameReader(LIMIT)
    for start in range(0, len(garbage), size):
        with contextlib.suppress(ProtocolError):
            for payload in reader.feed(garbage[start : start + size]):
                with contextlib.suppress(ProtocolError):
                    CODEC.decode(payload)
        assert reader.pending <= LIMIT + 4 + size


@given(st.binary(max_size=80), st.integers(0, 79), st.binary(max_size=4))
def test_a_damaged_message_decodes_or_is_a_protocol_error(
    tail: bytes, place: int, damage: bytes
) -> None:
    good = b"\x93\x00\x00\x95\xa6report\x01\x02\xa7RUNNING\x03" + tail
    bad = good[:place] + damage + good[place + len(damage) :]
    with contextlib.suppress(ProtocolError):
        envelope = CODEC.decode(bad)
        assert CODEC.decode(CODEC.encode(envelope)) == envelope
