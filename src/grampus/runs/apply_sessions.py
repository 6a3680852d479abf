"""Sessions of workers, and the master's office."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from grampus.model.lease import KEEP
from grampus.model.run import AttemptState
from grampus.runs.apply_attempts import report_attempt
from grampus.runs.change import Change
from grampus.runs.commands import (
    MOST_LOST,
    DrainWorker,
    EndSession,
    LoseAttempts,
    OpenSession,
    Refusal,
    ReportAttempt,
    SilenceSession,
    TakeOffice,
)
from grampus.runs.events import (
    OfficeTaken,
    SessionEnded,
    SessionOpened,
    SessionSeen,
    SessionSilent,
    WorkerDraining,
)


class Old(NamedTuple):
    """The live session of a name."""

    id: int
    instance: str
    machine: str
    boot: str
    folder: str
    group: str
    slots: int
    busy: int
    silent: int | None


def open_session(change: Change, command: OpenSession) -> int | Refusal:
    """One live session a name. A second incarnation waits, unless nothing of the first is left."""
    row = change.db.one(
        "SELECT id, instance, machine, boot, folder, grp, slots, busy, silent FROM session"
        " WHERE name = ? AND ended IS NULL",
        (command.name,),
    )
    if row is not None:
        old = Old(*row)
        if old.instance == command.instance:
            return _seen(change, command, old)
        why = _over(old, command)
        if why is None:
            return Refusal("conflict", _occupied(old, command))
        _end(change, command.at, old.id, command.name, why)
    return _open(change, command)


def _seen(change: Change, command: OpenSession, old: Old) -> int | Refusal:
    if (old.slots, old.group) != (command.slots, command.group):
        return Refusal("conflict", f"{command.name} is registered with other slots")
    change.db.execute(
        "UPDATE session SET registered = ?, silent = NULL WHERE id = ?", (change.index, old.id)
    )
    change.emit(
        SessionSeen, at=command.at, session=old.id, worker=command.name, registered=change.index
    )
    return old.id


def _over(old: Old, command: OpenSession) -> str | None:
    """Why nothing of the old session can live any more; None when something may."""
    if old.machine == command.machine and old.boot != command.boot:
        return "its machine was rebooted"
    if command.clean and old.folder == command.folder:
        return "its worker was started anew"
    if old.silent is not None and not old.busy:
        return "it was silent, and another worker has its name now"
    return None


def _occupied(old: Old, command: OpenSession) -> str:
    if old.folder == command.folder:
        return f"worker {command.name} is registered and may be alive"
    return (
        f"worker {command.name} is registered from another data folder and may be alive: choose"
        " another name, or wait until that one is silent and declare its attempts lost"
    )


def _open(change: Change, command: OpenSession) -> int:
    db = change.db
    draining = db.value(
        "SELECT draining FROM session WHERE name = ? ORDER BY id DESC LIMIT 1", (command.name,)
    )
    db.execute(
        "INSERT INTO session (name, instance, machine, boot, folder, grp, slots, busy, next_n,"
        " opened, registered, silent, draining, leased, ended, reason)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, 0, 1, ?, ?, NULL, ?, ?, NULL, '')",
        (
            command.name, command.instance, command.machine, command.boot, command.folder,
            command.group, command.slots, command.at, change.index, draining or 0,
            int(command.leased),
        ),
    )  # fmt: skip
    session: int = db.value("SELECT max(id) FROM session")
    change.emit(
        SessionOpened, at=command.at, session=session, worker=command.name, group=command.group,
        slots=command.slots, draining=bool(draining), registered=change.index,
        leased=command.leased,
    )  # fmt: skip
    return session


def _unheard(
    change: Change, command: SilenceSession | LoseAttempts
) -> tuple[str, int | None] | Refusal:
    """Name of the worker, and since when it is silent, if nobody has heard of it since the office
    that asks has."""
    db = change.db
    if db.value("SELECT value FROM meta WHERE key = 'epoch'") != command.epoch:
        return Refusal("stale-epoch", f"epoch {command.epoch} is over")
    row = db.one(
        "SELECT name, registered, silent FROM session WHERE id = ? AND ended IS NULL",
        (command.session,),
    )
    if row is None:
        return Refusal("no-session", f"session {command.session} has ended")
    name, registered, silent = row
    if registered != command.registered:
        return Refusal("conflict", f"worker {name} has registered again")
    return name, silent


def silence_session(change: Change, command: SilenceSession) -> str | Refusal:
    found = _unheard(change, command)
    if isinstance(found, Refusal):
        return found
    db, (name, silent) = change.db, found
    if silent is None:
        db.execute("UPDATE session SET silent = ? WHERE id = ?", (command.at, command.session))
        change.emit(SessionSilent, at=command.at, session=command.session, worker=name)
    return "silent"


def lose_attempts(change: Change, command: LoseAttempts) -> int | Refusal:
    found = _unheard(change, command)
    if isinstance(found, Refusal):
        return found
    db, (name, silent) = change.db, found
    if silent is None:
        return Refusal("conflict", f"worker {name} is not silent")
    if len(command.numbers) > MOST_LOST:
        return Refusal("conflict", f"more than {MOST_LOST} attempts are lost at once")
    kept = db.query(
        "SELECT n FROM attempt WHERE session = ? AND ended IS NULL AND lease = ?",
        (command.session, KEEP),
    )
    over = set(command.numbers) - {n for (n,) in kept}
    return _lose(change, command.at, command.session, command.reason, over)


def drain_worker(change: Change, command: DrainWorker) -> bool | Refusal:
    row = change.db.one(
        "SELECT id, draining FROM session WHERE name = ? ORDER BY id DESC LIMIT 1",
        (command.name,),
    )
    if row is None:
        return Refusal("not-found", f"there is no worker {command.name}")
    session, draining = row
    if bool(draining) == command.draining:
        return False
    change.db.execute(
        "UPDATE session SET draining = ? WHERE id = ?", (int(command.draining), session)
    )
    change.emit(
        WorkerDraining, at=command.at, session=session, worker=command.name,
        draining=command.draining, by=command.by,
    )  # fmt: skip
    return True


def end_session(change: Change, command: EndSession) -> str | Refusal:
    row = change.db.one(
        "SELECT name FROM session WHERE id = ? AND ended IS NULL", (command.session,)
    )
    if row is None:
        return Refusal("no-session", f"session {command.session} has ended")
    _end(change, command.at, command.session, row[0], command.reason)
    return "ended"


def _end(change: Change, at: int, session: int, worker: str, reason: str) -> None:
    """First its attempts are over, then the session: a fact never names a dead session."""
    _lose(change, at, session, reason)
    change.db.execute(
        "UPDATE session SET ended = ?, reason = ? WHERE id = ?", (at, reason, session)
    )
    change.emit(SessionEnded, at=at, session=session, worker=worker, reason=reason)


def _lose(
    change: Change, at: int, session: int, reason: str, only: Collection[int] | None = None
) -> int:
    """Its attempts that are not final, or `only` those of them. How many they were.

    What may have run is LOST. What was given ahead of a free slot, and is not known to have
    started, is CANCELLED: that is charged to nobody. One at least is charged, if there are any, so
    that a task that brings its machine down is not tried for ever."""
    count = 0
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
        if only is None or n in only:
            count += 1
            report_attempt(
                change, ReportAttempt(at, session, n, state, at, None, error, (), None, 0, 0)
            )
    return count


def take_office(change: Change, command: TakeOffice) -> int | Refusal:
    """The epoch is the index of this command: later ones are higher, on every server the same."""
    if command.term != change.term:
        reason = f"{command.node} led in term {command.term}, this is term {change.term}"
        return Refusal("stale-epoch", reason)
    change.db.execute("UPDATE meta SET value = ? WHERE key = 'epoch'", (change.index,))
    change.emit(OfficeTaken, at=command.at, epoch=change.index, node=command.node)
    return change.index
