"""Clients that use keys at random while a cluster is hurt, and write down what they were told."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

from grampus.errors import (
    ConditionFailed,
    GrampusError,
    Lagging,
    NoQuorum,
    NotFound,
    OutcomeUnknown,
    Overloaded,
    ServerUnreachable,
)
from grampus.sdk.client import Client
from grampus.testing.history import (
    Action,
    Decided,
    Delete,
    Get,
    Got,
    HasRevision,
    Operation,
    Put,
    Result,
    Txn,
    Wrote,
)
from tests.acceptance.node import until

#: Keys that all of them use.
KEYS = ("/r/0", "/r/1", "/r/2")
#: What is refused for certain: nothing happened.
REFUSED = (NoQuorum, Overloaded, Lagging)
Open = Callable[[], Client]


class Recorder(threading.Thread):
    """One client after the other, each until it does not know what became of a request."""

    def __init__(self, name: str, open_client: Open, seed: int) -> None:
        super().__init__(name=name, daemon=True)
        self._open = open_client
        self._random = random.Random(seed)
        self._count = 0
        self.history: list[Operation] = []
        #: Answered operations.
        self.answered = 0
        self.over = False
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            while not self.over:
                with self._open() as client:
                    while not self.over and self._operate(client):
                        time.sleep(self._random.uniform(0, 0.01))
        except BaseException as failure:
            self.failure = failure
            raise

    def _operate(self, client: Client) -> bool:
        """False when the client has to be a new one: it does not know what it has seen."""
        key = self._random.choice(KEYS)
        what = self._random.choice(["get", "get", "put", "put", "swap", "swap", "delete"])
        called = time.monotonic_ns()
        action: Action = Get(key.encode())
        try:
            match what:
                case "get":
                    action, result = look(client, key)
                case "put":
                    action = Put(key.encode(), self._value())
                    result = Wrote(client.kv.put(key, action.value))
                case "delete":
                    action = Delete(key.encode())
                    result = self._take_away(client, key)
                case _:
                    _, seen = look(client, key)
                    mod, value = seen.mod or 0, self._value()
                    called = time.monotonic_ns()
                    raw = key.encode()
                    action = Txn((HasRevision(raw, mod),), (Put(raw, value),))
                    result = self._swap(client, key, value, mod)
        except REFUSED:
            time.sleep(0.05)
            return True
        except OutcomeUnknown:
            if not isinstance(action, Get):
                self.history.append(Operation(self._me(), called, None, action, None))
            return False
        except ServerUnreachable:
            time.sleep(0.05)
            return False
        now = time.monotonic_ns()
        self.history.append(Operation(self._me(), called, now, action, result))
        self.answered += 1
        return True

    def _me(self) -> str:
        return self.name

    def _value(self) -> bytes:
        self._count += 1
        return f"{self.name}-{self._count}".encode()

    def _take_away(self, client: Client, key: str) -> Result:
        try:
            return Wrote(client.kv.delete(key), True)
        except NotFound:
            return Wrote(None, False)

    def _swap(self, client: Client, key: str, value: bytes, mod: int) -> Decided:
        try:
            return Decided(True, client.kv.put(key, value, if_revision=mod))
        except ConditionFailed:
            return Decided(False)


def look(client: Client, key: str) -> tuple[Get, Got]:
    try:
        found = client.kv.get(key)
    except NotFound:
        return Get(key.encode()), Got(None, 0)
    return Get(key.encode()), Got(found.value, found.mod_revision)


def last_look(name: str, client: Client) -> list[Operation]:
    """What is there in the end, as a part of the history: nothing in it may be unexplained."""
    found = []
    for key in KEYS:
        called = time.monotonic_ns()
        action, result = look(client, key)
        found.append(Operation(name, called, time.monotonic_ns(), action, result))
    return found


class Crew:
    """So many recorders at once."""

    def __init__(self, open_client: Open, count: int = 4, seed: int = 1) -> None:
        self._all = [
            Recorder(f"c{number}", open_client, seed * 100 + number) for number in range(count)
        ]

    def __enter__(self) -> Crew:
        for each in self._all:
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._all:
            each.over = True
        for each in self._all:
            each.join(30)

    @property
    def answered(self) -> int:
        for each in self._all:
            assert each.failure is None, repr(each.failure)
        return sum(each.answered for each in self._all)

    def go_on(self, count: int = 30) -> None:
        """Until so many more requests were answered."""
        least = self.answered + count
        until(lambda: self.answered >= least)

    def history(self) -> list[Operation]:
        """When they are done."""
        for each in self._all:
            assert each.failure is None, repr(each.failure)
            assert not each.is_alive(), f"{each.name} hangs"
        return [operation for each in self._all for operation in each.history]


def refused(error: GrampusError) -> bool:
    return isinstance(error, REFUSED)


def refuses(client: Client) -> bool:
    """Whether a server that is alone says so of a write; it may not know yet."""
    try:
        client.kv.put("/here", "2")
    except NoQuorum:
        return True
    except OutcomeUnknown:
        return False
    raise AssertionError("a server alone has taken a write")
