"""Sessions, and requests that are carried out once.

A session is ended by a command only: no clock is looked at here. When it ends, its keys, its
answers and itself are gone; whatever it still asks for is refused from then on.
"""

from __future__ import annotations

from collections.abc import Callable

from grampus.cluster.commands import Answer, Begin, End, Origin, decode_answer, encode_answer
from grampus.cluster.keyspace import Keyspace
from grampus.cluster.limits import ANSWER_BYTES, SESSIONS, WINDOW
from grampus.cluster.refusal import Refusal
from grampus.cluster.values import SessionBegan, SessionOver


def begin(space: Keyspace, command: Begin) -> int | Refusal:
    db, batch = space.db, space.batch
    known = db.value("SELECT id FROM cluster_session WHERE instance = ?", (command.instance,))
    if known is not None:
        return int(known)
    if db.value("SELECT count(*) FROM cluster_session") >= SESSIONS:
        return Refusal("too-many", f"there are {SESSIONS} sessions already: end some")
    batch.revision += 1
    session = batch.revision
    db.execute(
        "INSERT INTO cluster_session (id, instance, name, ttl, opened, acked, keys)"
        " VALUES (?, ?, ?, ?, ?, 0, 0)",
        (session, command.instance, command.name, command.ttl, command.at),
    )
    batch.facts.append(SessionBegan(session, command.at, command.name, command.ttl))
    return session


def end(space: Keyspace, command: End) -> str | Refusal:
    """First its keys go, in one revision, then the session."""
    db, batch, session = space.db, space.batch, command.session
    if db.value("SELECT id FROM cluster_session WHERE id = ?", (session,)) is None:
        return _over(session)
    owned = db.query(
        "SELECT key FROM kv WHERE session = ? AND session != 0 ORDER BY key", (session,)
    )
    space.begin()
    for (key,) in owned:
        space.delete(key)
    space.commit(command.at)
    db.execute("DELETE FROM cluster_result WHERE session = ?", (session,))
    db.execute("DELETE FROM cluster_session WHERE id = ?", (session,))
    batch.revision += 1
    batch.facts.append(SessionOver(batch.revision, command.at, session, command.reason))
    return "ended"


def once(space: Keyspace, origin: Origin | None, carry_out: Callable[[], Answer]) -> Answer:
    """Carries a request out unless it was before; then its answer of that time."""
    if origin is None:
        return carry_out()
    db, session, seq, acked = space.db, origin.session, origin.seq, origin.acked
    known = db.value("SELECT acked FROM cluster_session WHERE id = ?", (session,))
    if known is None:
        return _over(session)
    if not seq:
        return carry_out()
    if seq <= max(known, acked):
        return Refusal("forgotten", f"request {seq} of session {session} was acknowledged before")
    if seq > max(known, acked) + WINDOW:
        return Refusal(
            "too-many", f"a session has at most {WINDOW} requests whose answers it may ask for"
        )
    row = db.value(
        "SELECT answer FROM cluster_result WHERE session = ? AND seq = ?", (session, seq)
    )
    if row is not None:
        return decode_answer(row)
    waiting = db.value(
        "SELECT sum(length(answer)) FROM cluster_result WHERE session = ? AND seq > ?",
        (session, max(known, acked)),
    )
    if waiting is not None and waiting >= ANSWER_BYTES:
        return Refusal(
            "too-many",
            f"{waiting} bytes of answers wait for session {session} to acknowledge them: ask for"
            " less at a time, or one after the other",
        )
    answer = carry_out()
    db.execute(
        "INSERT INTO cluster_result (session, seq, answer) VALUES (?, ?, ?)",
        (session, seq, encode_answer(answer)),
    )
    if acked > known:
        db.execute("UPDATE cluster_session SET acked = ? WHERE id = ?", (acked, session))
        db.execute("DELETE FROM cluster_result WHERE session = ? AND seq <= ?", (session, acked))
    return answer


def _over(session: int) -> Refusal:
    return Refusal(
        "no-session",
        f"session {session} is over: its keys and locks are gone; begin a new one",
    )
