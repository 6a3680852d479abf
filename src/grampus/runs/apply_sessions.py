"""Sessions of workers, and the master's office."""

from __future__ import annotations

from grampus.model.run import AttemptState
from grampus.runs.apply_attempts import report_attempt
from grampus.runs.change import Change
from grampus.runs.commands import EndSession, OpenSession, Refusal, ReportAttempt, TakeOffice
from grampus.runs.events import OfficeTaken, SessionEnded, SessionOpened


def open_session(change: Change, command: OpenSession) -> int | Refusal:
    """One live session a name. A second incarnation waits, unless nothing of the first is left."""
    db = change.db
    old = db.one(
        "SELECT id, instance, machine, boot, slots, grp FROM session"
        " WHERE name = ? AND ended IS NULL",
        (command.name,),
    )
    if old is not None:
        session, instance, machine, boot, slots, group = old
        if instance == command.instance:
            if (slots, group) != (command.slots, command.group):
                return Refusal("conflict", f"{command.name} is registered with other slots")
            return int(session)
        rebooted = machine == command.machine and boot != command.boot
        if not command.clean and not rebooted:
            return Refusal("conflict", f"worker {command.name} is registered and may be alive")
        why = "its machine was rebooted" if rebooted else "its worker was started anew"
        _end(change, command.at, session, command.name, why)
    db.execute(
        "INSERT INTO session (name, instance, machine, boot, grp, slots, busy, next_n, opened,"
        " ended, reason) VALUES (?, ?, ?, ?, ?, ?, 0, 1, ?, NULL, '')",
        (
            command.name, command.instance, command.machine, command.boot, command.group,
            command.slots, command.at,
        ),
    )  # fmt: skip
    session = db.value("SELECT max(id) FROM session")
    change.emit(
        SessionOpened, at=command.at, session=session, worker=command.name,
        group=command.group, slots=command.slots,
    )  # fmt: skip
    return int(session)


def end_session(change: Change, command: EndSession) -> str | Refusal:
    row = change.db.one(
        "SELECT name FROM session WHERE id = ? AND ended IS NULL", (command.session,)
    )
    if row is None:
        return Refusal("no-session", f"session {command.session} has ended")
    _end(change, command.at, command.session, row[0], command.reason)
    return "ended"


def _end(change: Change, at: int, session: int, worker: str, reason: str) -> None:
    """First its attempts are over, then the session: a fact never names a dead session.

    What may have run is LOST. What was given ahead of a free slot, and is not known to have
    started, is CANCELLED: that is charged to nobody. One at least is charged, if there are any, so
    that a task that brings its machine down is not tried for ever."""
    room: int = change.db.value("SELECT slots FROM session WHERE id = ?", (session,))
    live = change.db.query(
        "SELECT n, slots, state FROM attempt WHERE session = ? AND ended IS NULL"
        " ORDER BY state = 'RUNNING' DESC, n",
        (session,),
    )
    for n, slots, before in list(live):
        state, error = AttemptState.LOST, reason
        if before != AttemptState.RUNNING and slots > room:
            state, error = AttemptState.CANCELLED, f"{reason}: it is not known to have started"
            room = 0  # those behind it waited too
        room -= slots
        report_attempt(
            change, ReportAttempt(at, session, n, state, at, None, error, (), None, 0, 0)
        )
    change.db.execute(
        "UPDATE session SET ended = ?, reason = ? WHERE id = ?", (at, reason, session)
    )
    change.emit(SessionEnded, at=at, session=session, worker=worker, reason=reason)


def take_office(change: Change, command: TakeOffice) -> int | Refusal:
    """The epoch is the index of this command: later ones are higher, on every server the same."""
    if command.term != change.term:
        reason = f"{command.node} led in term {command.term}, this is term {change.term}"
        return Refusal("stale-epoch", reason)
    change.db.execute("UPDATE meta SET value = ? WHERE key = 'epoch'", (change.index,))
    change.emit(OfficeTaken, at=command.at, epoch=change.index, node=command.node)
    return change.index
