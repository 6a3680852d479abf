"""The metadata center for Python: keys, conditions, transactions, watches. Found as `Client().kv`.

Rule: a write is sent once. Whether it happened is known, or `OutcomeUnknown` says that it may
have; an old write never comes after a newer one of somebody else. What was read once is never read
in an older state, whichever server answers. When a cluster was recovered the next read says so
once, as `WrongHistory`; those after it are of the new history. One that was restored is another
cluster, for another client.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import httpx
import msgspec

from grampus.errors import ProtocolError, UsageError, WrongHistory
from grampus.sdk.answers import Key, KeysChanged
from grampus.sdk.follow import follow_keys
from grampus.sdk.sessions import Lock, Session
from grampus.sdk.transport import Transport

T = TypeVar("T")
KV = "/api/v1/kv"
SEEN = "Grampus-Seen"
PAGE = 500
#: The beginning of a later history of a cluster skips so many revisions.
SKIP = 2**32
_SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


class Keys:
    """Keys are text of at most 512 bytes, values bytes of at most 64 KiB (text is encoded)."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        #: The newest state that was seen, as the server spells it.
        self._seen: str | None = None

    def get(self, key: str, *, stale: bool = False) -> Key:
        """Raises NotFound. `stale`: as the server has it, without asking the others."""
        return self._read(KV + "/" + _path(key), {}, stale, Key)

    def put(
        self,
        key: str,
        value: bytes | str,
        *,
        if_revision: int | None = None,
        session: Session | None = None,
    ) -> int:
        """The revision. With `if_revision`, only if the key's newest put is of that revision, and
        for 0 only if there is no such key; else ConditionFailed. With `session` the key is gone
        when that is over; SessionUnknown when it is."""
        data = value.encode() if isinstance(value, str) else value
        headers = {"Content-Type": "application/octet-stream", **_condition(if_revision)}
        if session is not None:
            session.check()
        answer = self._transport.ask(
            "PUT", KV + "/" + _path(key), content=data, headers=headers, repeat=False,
            query=None if session is None else {"session": session.id},
        )  # fmt: skip
        return self._answer(answer, _Written).revision

    def delete(self, key: str, *, if_revision: int | None = None) -> int:
        """The revision. Raises NotFound, or ConditionFailed."""
        if if_revision == 0:
            raise UsageError("a key that does not exist cannot be deleted: leave if_revision out")
        answer = self._transport.ask(
            "DELETE", KV + "/" + _path(key), headers=_condition(if_revision), repeat=False
        )
        return self._answer(answer, _Written).revision

    def range(
        self, prefix: str = "", *, limit: int | None = None, stale: bool = False
    ) -> Iterator[Key]:
        """Keys that begin with `prefix`, in the order of their bytes; read page by page."""
        after, left = "", limit
        while left is None or left > 0:
            size = PAGE if left is None else min(left, PAGE)
            query = {"prefix": prefix, "limit": size, "after": after or None}
            page = self._read(KV, query, stale, _Page)
            yield from page.items
            left = None if left is None else left - len(page.items)
            if page.next is None:
                return
            after = page.next

    def snapshot(self, prefix: str = "") -> tuple[list[Key], int]:
        """All keys of one page at one revision: watch from the next one on. At most 1,000."""
        page = self._read(KV, {"prefix": prefix, "limit": 1000}, False, _Page)
        if page.next is not None:
            raise UsageError(f"{prefix!r} has too many keys for one look: use range")
        return page.items, page.revision

    def watch(self, prefix: str = "", *, first: int | None = None) -> Iterator[KeysChanged]:
        """What changes from revision `first` on, or from now on; without end, whole revisions.

        Goes on elsewhere when a server goes away. Raises Compacted when part of it is forgotten:
        then read the keys, and watch from the revision behind that of the answer."""
        return follow_keys(self._transport, KV, prefix, first)

    def txn(
        self,
        compare: Sequence[Mapping[str, Any]],
        then: Sequence[Mapping[str, Any]],
        orelse: Sequence[Mapping[str, Any]] = (),
        *,
        session: Session | None = None,
    ) -> TxnResult:
        """`then` if all of `compare` hold, else `orelse`, in one revision. With `session` only
        while that lives, else SessionUnknown; what is put with `"ephemeral": True` goes with it.

        Each is spelled as in HTTP, but that values are bytes or text:
        `{"key": "/a", "version": 0}`, `{"put": {"key": "/a", "value": b"1"}}`,
        `{"delete": {"prefix": "/b/"}}`, `{"get": {"key": "/c"}}`."""
        body: dict[str, Any] = {
            "compare": [_spelled(each) for each in compare],
            "then": [_spelled(each) for each in then],
            "else": [_spelled(each) for each in orelse],
        }
        if session is not None:
            session.check()
            body["session"] = session.id
        answer = self._transport.ask("POST", KV + ":txn", body=body, repeat=False)
        return self._answer(answer, TxnResult)

    def session(self, name: str, ttl: float = 10.0) -> Session:
        """Begins a session, kept alive by a thread until it is closed. `ttl` in seconds: for so
        long it lives without a sign."""
        return Session(self._transport, name, ttl)

    def lock(
        self,
        name: str,
        wait: float | None = None,
        *,
        ttl: float = 10.0,
        in_line: Callable[[], None] = lambda: None,
    ) -> Lock:
        """Waits for the lock, for `wait` seconds if that is said, in a session of its own. Raises
        Refused when it is held for longer. `in_line`: see `Session.lock`."""
        session = self.session(f"{os.uname().nodename[:64]}-{os.getpid()}", ttl)
        try:
            return Lock(session, name, session.lock(name, wait, in_line=in_line))
        except BaseException:
            session.close()
            raise

    def _read(self, path: str, query: dict[str, Any], stale: bool, kind: type[T]) -> T:
        headers = {} if self._seen is None else {SEEN: self._seen}
        if stale:
            query["stale"] = "true"
        try:
            answer = self._transport.ask("GET", path, query=query, headers=headers)
        except WrongHistory as error:
            self._leave(error)
            raise
        return self._answer(answer, kind)

    def _answer(self, answer: httpx.Response, kind: type[T]) -> T:
        self._note(answer.headers.get(SEEN))
        try:
            return msgspec.json.decode(answer.content, type=kind)
        except msgspec.DecodeError as error:
            raise ProtocolError(f"the answer about keys is not understood: {error}") from error

    def _leave(self, told: WrongHistory) -> None:
        """Goes on with a newer history, without what was seen; never back to an older one."""
        seen = int((self._seen or ":0").rpartition(":")[2])
        if told.revision // SKIP >= seen // SKIP:
            self._seen = None

    def _note(self, seen: str | None) -> None:
        """Remembers the newest state, also where another history of the cluster begins."""
        if seen is None:
            return
        old, new = (self._seen or ":0").rpartition(":"), seen.rpartition(":")
        if int(new[2]) > int(old[2]) or not old[0]:
            self._seen = seen


class OpResult(msgspec.Struct, frozen=True, kw_only=True):
    """Of one operation: `deleted` of a delete, `items` and `more` of a get."""

    type: str
    deleted: int = 0
    items: list[Key] = []
    more: bool = False


class TxnResult(msgspec.Struct, frozen=True, kw_only=True):
    """`results` are those of the branch that was taken."""

    revision: int
    succeeded: bool
    results: list[OpResult]


class _Written(msgspec.Struct):
    revision: int


class _Page(msgspec.Struct):
    revision: int
    items: list[Key]
    next: str | None = None


def _path(key: str) -> str:
    """The key as one segment of a path: dots too, or they would mean folders."""
    return "".join(chr(b) if b in _SAFE else f"%{b:02X}" for b in key.encode())


def _condition(if_revision: int | None) -> dict[str, str]:
    if if_revision is None:
        return {}
    return {"If-None-Match": "*"} if if_revision == 0 else {"If-Match": f'"{if_revision}"'}


def _spelled(part: Mapping[str, Any]) -> dict[str, Any]:
    """With values in base64."""
    spelled: dict[str, Any] = {}
    for name, value in part.items():
        if name == "value":
            data = value.encode() if isinstance(value, str) else value
            spelled[name] = base64.b64encode(data).decode()
        else:
            spelled[name] = _spelled(value) if isinstance(value, Mapping) else value
    return spelled
