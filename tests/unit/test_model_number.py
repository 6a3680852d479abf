"""Numbers that a worker tells are looked at where they are read, before any command is made."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from grampus.errors import ProtocolError
from grampus.model.run import INLINE_LIMIT, AttemptState, Value
from grampus.protocol import Message, Register, Report, Reports
from grampus.rpc.codec import Codec, OneWay
from grampus.runs.commands import COMMAND_LIMIT, ReportAttempt, encode_command

HUGE = 2**63
DONE = AttemptState.SUCCEEDED


@pytest.mark.parametrize(
    "message",
    [
        Report(HUGE, 1, DONE, 1),
        Report(1, HUGE, DONE, 1),
        Report(1, 1, DONE, -1),
        Report(1, 1, DONE, 253_402_300_800_000),
        Report(1, 1, DONE, 1, HUGE),
        Report(1, 1, DONE, 1, 0, "", (), Value("json", b"1", None, HUGE)),
        Report(1, 1, DONE, 1, stdout=HUGE),
        Report(1, 1, DONE, 1, stderr=-1),
        Register("w", "i", "m", "b", "default", HUGE, 1, "cgroup", True),
    ],
    ids=repr,
)
def test_what_no_column_holds_is_no_message(message: Message) -> None:
    codec: Codec[Message] = Codec(Message)
    for said in (message, Reports([message]) if isinstance(message, Report) else message):
        with pytest.raises(ProtocolError, match="no message"):
            codec.decode(codec.encode(OneWay(0, said)))


LONG = Report(1, 1, DONE, 1, 0, "\U0001f40b" * 8_000, ("\U0001f40b" * 400,) * 64,
              Value("json", b"x" * INLINE_LIMIT, None, 1))  # fmt: skip


def test_the_longest_report_is_a_command() -> None:
    codec: Codec[Message] = Codec(Message)
    assert codec.decode(codec.encode(OneWay(0, LONG))) == OneWay(0, LONG)
    command = ReportAttempt(
        1, 1, 1, DONE, 1, 0, LONG.error, LONG.exception, LONG.output, LONG.stdout, LONG.stderr
    )
    assert len(encode_command(command)) <= COMMAND_LIMIT


@pytest.mark.parametrize(
    "report",
    [
        replace(LONG, error=LONG.error + "x"),
        replace(LONG, exception=(*LONG.exception, "x")),
        replace(LONG, exception=("x" * 401,)),
        replace(LONG, output=Value("json", b"x" * (INLINE_LIMIT + 1), None, 1)),
        replace(LONG, output=Value("json", None, "x" * 65, 1)),
    ],
    ids=["error", "names", "name", "output", "blob"],
)
def test_a_longer_one_is_no_message(report: Report) -> None:
    codec: Codec[Message] = Codec(Message)
    with pytest.raises(ProtocolError, match="no message"):
        codec.decode(codec.encode(OneWay(0, report)))


def test_what_a_column_holds_passes() -> None:
    codec: Codec[Message] = Codec(Message)
    value = Value("json", None, "0" * 64, HUGE - 1)
    said = Report(HUGE - 1, 1, DONE, 0, -9, "", (), value, HUGE - 1, 0)
    assert codec.decode(codec.encode(OneWay(0, said))) == OneWay(0, said)
