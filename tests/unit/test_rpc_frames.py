"""Frames and envelopes at their edges."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from time import process_time

import msgspec
import pytest

from grampus.errors import ProtocolError
from grampus.protocol import Ack, Goodbye, Kill, Message
from grampus.rpc.codec import Codec, Failure, OneWay, Reason, Request, Response
from grampus.rpc.frames import FrameReader, frame

CODEC = Codec[Message](Message)


def test_a_frame_is_its_length_in_four_big_endian_bytes_and_its_payload() -> None:
    assert frame(b"abc") == b"\x00\x00\x00\x03abc"
    assert frame(b"") == b"\x00\x00\x00\x00"


def test_a_frame_of_exactly_the_limit_passes_and_one_byte_more_does_not() -> None:
    reader = FrameReader(3)
    assert reader.feed(frame(b"abc")) == [b"abc"]
    with pytest.raises(ProtocolError, match="4 bytes, where at most 3"):
        reader.feed(frame(b"abcd"))


def test_a_header_of_four_gigabytes_is_refused_before_any_of_it_is_kept() -> None:
    reader = FrameReader(1024)
    with pytest.raises(ProtocolError, match="4294967295 bytes"):
        reader.feed(b"\xff\xff\xff\xff" + b"x" * 100_000)
    assert reader.pending == 0


def test_a_reader_that_saw_a_bad_header_stays_broken() -> None:
    reader = FrameReader(1)
    with pytest.raises(ProtocolError):
        reader.feed(frame(b"abc"))
    with pytest.raises(ProtocolError, match="3 bytes"):
        reader.feed(frame(b"a"))


def test_the_limit_can_be_raised_between_two_frames_of_one_read() -> None:
    reader = FrameReader(2)
    assert reader.feed(frame(b"hi") + frame(b"long one"), most=1) == [b"hi"]
    reader.limit = 100
    assert reader.feed(b"") == [b"long one"]
    assert reader.pending == 0


def test_a_large_frame_in_single_bytes_takes_linear_time_and_no_second_copy() -> None:
    def seconds(size: int) -> float:
        reader, payload = FrameReader(size), bytes(size)
        pieces = [bytes([byte]) for byte in frame(payload)]
        start = process_time()
        for piece in pieces[:-1]:
            assert reader.feed(piece) == []
        assert reader.feed(pieces[-1]) == [payload]
        return process_time() - start

    small = min(seconds(20_000) for _ in range(3))
    # Eight times the bytes: 8 when linear, 64 when quadratic.
    assert min(seconds(160_000) for _ in range(3)) < 24 * small


def test_many_frames_handed_out_one_at_a_time_take_linear_time() -> None:
    def seconds(count: int) -> float:
        reader = FrameReader(100)
        start = process_time()
        got = reader.feed(frame(b"x" * 50) * count, most=1)
        while more := reader.feed(b"", most=1):
            got += more
        assert len(got) == count
        return process_time() - start

    small = min(seconds(5_000) for _ in range(3))
    assert min(seconds(40_000) for _ in range(3)) < 24 * small


def test_an_announced_frame_takes_memory_only_as_it_comes() -> None:
    reader = FrameReader(2**30)
    tracemalloc.start()
    try:
        reader.feed((2**30).to_bytes(4, "big") + b"x" * 1000)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "envelope",
    [
        OneWay(0, Ack(1, [2, 3], [])),
        Request(7, Kill(1, 2, "because")),
        Response(2**63, Goodbye("bye")),
        Failure(1, Reason(4, "no")),
    ],
)
def test_every_kind_of_envelope_comes_back_equal(envelope: OneWay[Message]) -> None:
    assert CODEC.decode(CODEC.encode(envelope)) == envelope


def test_an_envelope_is_an_array_of_kind_id_and_body() -> None:
    def plain(envelope: OneWay[Message] | Request[Message] | Response[Message] | Failure) -> object:
        return msgspec.msgpack.decode(CODEC.encode(envelope))

    assert plain(OneWay(0, Goodbye("x"))) == [0, 0, ["goodbye", "x", ""]]
    assert plain(Request(5, Goodbye("x"))) == [1, 5, ["goodbye", "x", ""]]
    assert plain(Response(5, Goodbye("x"))) == [2, 5, ["goodbye", "x", ""]]
    assert plain(Failure(5, Reason(6, "gone"))) == [3, 5, [6, "gone", ""]]


def test_what_a_newer_peer_adds_at_the_end_is_ignored() -> None:
    newer = msgspec.msgpack.encode([0, 0, ["goodbye", "x", "", {"new": 1}], "also new"])
    assert CODEC.decode(newer) == OneWay(0, Goodbye("x"))


DEEP = b"\x93\x00\x00\x93\xa7goodbye\xa1x" + b"\x91" * 100_000 + b"\x00"


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        b"GET / HTTP/1.1\r\n",
        msgspec.msgpack.encode([9, 0, ["goodbye", "x"]]),
        msgspec.msgpack.encode([0, 1, ["goodbye", "x"]]),
        msgspec.msgpack.encode([0, 0, ["no-such", "x"]]),
        msgspec.msgpack.encode([0, 0, ["goodbye", 5]]),
        msgspec.msgpack.encode([0, 0, ["goodbye"]]),
        msgspec.msgpack.encode([0, 0, None]),
        msgspec.msgpack.encode([0, 0, ["goodbye", "x"]]) + b"tail",
        msgspec.msgpack.encode({"kind": 0}),
        b"\x93\x00\x00\x92\xa7goodbye\xa2\xff\xfe",
        b"\x93\x00\x00\x94\xa3ack\x01\xdd\xff\xff\xff\xff\x01",
        pytest.param(DEEP, id="deep"),
    ],
)
def test_bytes_that_are_no_message_are_a_protocol_error(payload: bytes) -> None:
    with pytest.raises(ProtocolError, match="no message"):
        CODEC.decode(payload)


def test_the_text_of_a_protocol_error_is_short_and_on_one_line_whatever_was_sent() -> None:
    forged = "x\nCRITICAL all is lost\x1b[2J" + "y" * 10_000
    with pytest.raises(ProtocolError) as caught:
        CODEC.decode(msgspec.msgpack.encode([0, 0, [forged]]))
    text = str(caught.value)
    assert text.isprintable()
    assert len(text) < 300


def test_frames_and_codec_do_not_bring_asyncio_or_the_protocol_into_a_process() -> None:
    code = (
        "import sys, grampus.rpc.frames, grampus.rpc.codec;"
        "unwanted = ('asyncio', 'socket', 'logging', 'grampus.protocol');"
        "print([m for m in unwanted if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.strip() == "[]"
