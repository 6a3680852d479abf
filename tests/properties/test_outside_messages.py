"""Whatever a worker or a client of the keys may say: either it is no message, or the ledger can
carry it out. An exception there would end every server, and end it again at each start."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from grampus.clock import SystemClock
from grampus.cluster import requests
from grampus.cluster.commands import Begin, Compare, DeleteOp, End, GetOp, Origin, PutOp
from grampus.cluster.desk import KeyDesk
from grampus.cluster.limits import check_ttl
from grampus.cluster.requests import CloseSession, DeleteKeys, OpenSession, PutKey, Transact
from grampus.cluster.writes import Writes, encoded
from grampus.errors import GrampusError
from grampus.ledger import Ledger
from grampus.model.run import AttemptState, Value
from grampus.model.workflow import Shell, Task, Workflow
from grampus.protocol import Message, Register, Report
from grampus.rpc.codec import Codec, OneWay
from grampus.runs.commands import (
    ApplyWorkflow,
    ReportAttempt,
    StartAttempts,
    SubmitRun,
    TakeOffice,
    encode_command,
    pack_definition,
)
from grampus.runs.commands import OpenSession as OpenWorkerSession

NUMBERS = st.sampled_from([0, 1, 2, 3, 127, 128, 129, 500, 2**31, 2**63 - 1, 2**63, 2**64 - 1, -1])
BYTES = st.sampled_from([b"", b"a", b"/a", b"b", b"a\0", b"\xff", b"/" * 512, b"/" * 513, b"\xc3"])
TEXT = st.sampled_from(["", "a", "job", "x" * 128, "x" * 9_000, "a\0b", "é\n"])
ORIGIN = st.none() | st.builds(Origin, st.just(1) | NUMBERS, NUMBERS, NUMBERS)
OPS = st.one_of(
    st.builds(PutOp, BYTES, BYTES, st.booleans()),
    st.builds(DeleteOp, BYTES, BYTES),
    st.builds(GetOp, BYTES, BYTES, NUMBERS),
)
TARGETS = st.sampled_from(["value", "version", "created", "modified", "session"])
SIGNS = st.sampled_from(["=", "!=", "<", ">"])
COMPARES = st.builds(Compare, BYTES, TARGETS, SIGNS, NUMBERS | BYTES)
SEVERAL = st.lists(OPS, max_size=4).map(tuple)
REQUESTS = st.one_of(
    st.builds(PutKey, BYTES, BYTES, ORIGIN, st.booleans()),
    st.builds(DeleteKeys, BYTES, st.booleans(), ORIGIN),
    st.builds(Transact, st.lists(COMPARES, max_size=3).map(tuple), SEVERAL, SEVERAL, ORIGIN),
    st.builds(OpenSession, TEXT, TEXT, st.just(5_000) | NUMBERS),
    st.builds(CloseSession, NUMBERS),
)
VALUES = st.builds(
    Value, st.sampled_from(["json", "pickle"]), st.none() | BYTES, st.none() | TEXT, NUMBERS
)
REPORTS = st.builds(
    Report, st.just(1) | NUMBERS, st.just(1) | NUMBERS, st.sampled_from(AttemptState), NUMBERS,
    st.none() | NUMBERS, TEXT, st.lists(TEXT, max_size=3).map(tuple), st.none() | VALUES, NUMBERS,
    NUMBERS, NUMBERS, st.none() | NUMBERS,
)  # fmt: skip
REGISTERS = st.builds(
    Register, TEXT, TEXT, TEXT, TEXT, TEXT, NUMBERS, NUMBERS, TEXT, st.booleans(), TEXT
)


class Face:
    """A metadata center that writes."""

    def __init__(self, writes: Writes) -> None:
        self.writes = writes


class Book:
    def __init__(self) -> None:
        self.ledger = Ledger(None)
        self.do(encode_command(TakeOffice(1, "n", 1)), encoded(Begin(1, "i", "me", 10_000)))

    def do(self, *commands: bytes) -> list[object]:
        return self.ledger.apply(self.ledger.applied_index + 1, 1, commands)[0]


def command_of(request: Any, writes: Writes) -> bytes:
    """As `KeyDesk` and `ClusterServer` make it. Raises GrampusError."""
    match requests.decode_request(requests.encode(request)):
        case OpenSession(instance, name, ttl):
            check_ttl(ttl)
            return encoded(Begin(1, instance, name, ttl))
        case CloseSession(session):
            return encoded(End(1, session, "closed"))
        case write:
            face: Any = Face(writes)
            return KeyDesk(face, face)._command(write)


@settings(max_examples=300, deadline=None)
@given(st.lists(REQUESTS, max_size=12))
def test_what_a_client_of_the_keys_asks_for_can_be_carried_out(asked: list[Any]) -> None:
    async def go() -> None:
        nobody: Any = None
        writes, book = Writes(nobody, SystemClock()), Book()
        for request in asked:
            try:
                command = command_of(request, writes)
            except (GrampusError, OverflowError):
                continue  # no message, or nothing that is proposed
            book.ledger.light([command])
            assert len(book.do(command)) == 1
        book.ledger.checksum()

    asyncio.run(go())


@settings(max_examples=300, deadline=None)
@given(st.lists(REPORTS | REGISTERS, max_size=12))
def test_what_a_worker_says_can_be_carried_out(said: list[Any]) -> None:
    codec: Codec[Message] = Codec(Message)
    book = Book()
    workflow = Workflow("w", (Task("a", Shell("true")),))
    book.do(
        encode_command(OpenWorkerSession(1, "w1", "i1", "m", "b", True, "default", 4)),
        encode_command(ApplyWorkflow(1, "w", pack_definition(workflow.content()))),
        encode_command(SubmitRun(1, "r1", "w", 1, b"{}", "x", 0, 1)),
        encode_command(StartAttempts(1, 1, 1, "r1", [(0, 1)])),
    )
    for message in said:
        try:
            heard: Any = codec.decode(codec.encode(OneWay(0, message)))
        except (GrampusError, OverflowError):
            continue
        match heard.body:
            case Report() as report:
                command = encode_command(
                    ReportAttempt(
                        1, report.session, report.n, report.state, report.at, report.exit,
                        report.error, report.exception, report.output, report.stdout,
                        report.stderr, report.took,
                    )
                )  # fmt: skip
            case Register() as register:
                command = encode_command(
                    OpenWorkerSession(
                        1, register.name, register.instance, register.machine, register.boot,
                        register.clean, register.group, register.slots, register.folder,
                    )
                )  # fmt: skip
        assert len(book.do(command)) == 1
    book.ledger.checksum()
