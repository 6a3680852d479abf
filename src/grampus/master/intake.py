"""Reports of workers on their way into the ledger: in batches, acknowledged after the commit.

A worker repeats what is not acknowledged, so nothing here has to be kept when something goes wrong;
but nothing may be acknowledged that is not committed.
"""

from __future__ import annotations

import asyncio
import logging

from grampus.clock import Clock
from grampus.errors import GrampusError
from grampus.model.run import FINAL_ATTEMPT
from grampus.protocol import Ack, Message, Report
from grampus.rpc.connection import Connection
from grampus.runs.commands import ReportAttempt
from grampus.runs.proposer import Proposer

log = logging.getLogger("grampus.master")

#: Reports proposed together, and reports that wait at most: what is beyond is dropped, and comes
#: again.
BATCH = 500
WAITING = 20_000


class Intake:
    def __init__(self, proposer: Proposer, clock: Clock) -> None:
        self._proposer = proposer
        self._clock = clock
        #: Each with the time at which it happened, on our clock.
        self._waiting: list[tuple[Connection[Message], Report, int]] = []
        self._wake = asyncio.Event()

    def put(self, connection: Connection[Message], reports: list[tuple[Report, int]]) -> None:
        """Each with how long ago it happened, in ms."""
        room, now = WAITING - len(self._waiting), self._clock.now()
        self._waiting.extend((connection, report, now - ago) for report, ago in reports[:room])
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._wake.wait()
            batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
            if not self._waiting:
                self._wake.clear()
            try:
                answers = await self._proposer.propose(
                    *(self._command(report, when) for _, report, when in batch)
                )
            except GrampusError as error:
                log.warning("%d reports wait for their workers to repeat: %s", len(batch), error)
                await asyncio.sleep(0.1)
                continue
            self._acknowledge([(peer, report) for peer, report, _ in batch], answers)

    def _command(self, report: Report, when: int) -> ReportAttempt:
        return ReportAttempt(
            self._clock.now(), report.session, report.n, report.state, when, report.exit,
            report.error, report.exception, report.output, report.stdout, report.stderr,
            report.took,
        )  # fmt: skip

    def _acknowledge(
        self, batch: list[tuple[Connection[Message], Report]], answers: list[object]
    ) -> None:
        done: dict[Connection[Message], dict[int, Ack]] = {}
        for (connection, report), answer in zip(batch, answers, strict=True):
            if report.state not in FINAL_ATTEMPT:
                continue
            acks = done.setdefault(connection, {})
            ack = acks.setdefault(report.session, Ack(report.session, [], []))
            (ack.stale if answer == "stale" else ack.done).append(report.n)
        for connection, acks in done.items():
            for ack in acks.values():
                connection.send(ack)
