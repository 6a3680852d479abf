"""When a module is worth a prepared process, and which one makes room. Nothing is started here."""

from __future__ import annotations

import socket

import pytest

from grampus.worker import stock as module
from grampus.worker.containment import PidNamespace, Subreaper
from grampus.worker.demand import DECLINED_FOR, IDLE, Key
from grampus.worker.loop import Loop
from grampus.worker.orders import Launch, Warm
from grampus.worker.oven import IMPORT_TIMEOUT, Oven
from grampus.worker.slot import Slot
from grampus.worker.stock import KEPT, MAKES_ROOM, Stock


class Quiet(Stock):
    """Says what it would prepare and retire."""

    def __init__(self, contained: bool = True) -> None:
        containment = PidNamespace() if contained else Subreaper()
        super().__init__(Loop(), lambda *_: None, 2, "/nowhere", 4096, "i", 0, containment)
        self.did: list[str] = []

    def _prepare(self, key: Key, now: int) -> None:
        self.did.append(f"+{key[0]}")
        ours, theirs = socket.socketpair()
        theirs.close()
        self._ovens[key] = Oven(key, Slot(9, "/nowhere", 4096, "i"), ours, now)

    def _retire(self, oven: Oven, reason: str, decline: bool = False) -> None:
        self.did.append(f"-{oven.key[0]}")
        oven.control.close()
        del self._ovens[oven.key]
        if decline:
            self._decline(oven.key, reason)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    now = [1_000_000]
    monkeypatch.setattr(module, "ticks", lambda: now[0])
    return now


HOME = Slot(0, "/nowhere", 4096, "i")


def want(stock: Stock, name: str, env: dict[str, str] | None = None, warm: bool = True) -> None:
    given = {"GRAMPUS_ATTEMPT": "1", **(env or {})}
    launch = Launch(1, ["x"], given, "/", None, 0, "r/t.1", Warm(name, "/b") if warm else None)
    assert stock.take(launch, HOME) is None


def end(stock: Quiet) -> list[str]:
    did = list(stock.did)
    stock.close()
    return did


def test_the_second_wish_within_a_minute_is_worth_it(clock: list[int]) -> None:
    stock = Quiet()
    want(stock, "a")
    clock[0] += IDLE + 1
    want(stock, "a")
    assert stock.did == []
    clock[0] += IDLE
    want(stock, "a")
    want(stock, "a")
    assert end(stock) == ["+a"]


def test_another_environment_at_import_is_another_process(clock: list[int]) -> None:
    stock = Quiet()
    for env in ({"A": "1"}, {"A": "2"}, {"A": "1", "GRAMPUS_TASK": "t"}):
        want(stock, "a", env)
    assert end(stock) == ["+a"]


def test_nothing_is_prepared_for_others_nor_without_a_pid_namespace(clock: list[int]) -> None:
    plain, bare = Quiet(), Quiet(contained=False)
    for _ in range(3):
        want(plain, "a", warm=False)
        want(bare, "a")
    assert end(plain) == end(bare) == []


def test_the_longest_unused_makes_room_but_not_one_in_use(clock: list[int]) -> None:
    stock = Quiet()
    names = [f"m{i}" for i in range(KEPT)]
    for name in names:
        clock[0] += 1
        want(stock, name)
        want(stock, name)
    want(stock, "new")
    want(stock, "new")
    assert stock.did == [f"+{name}" for name in names]
    clock[0] += MAKES_ROOM
    want(stock, "m0")
    want(stock, "new")
    assert stock.did[KEPT:] == ["-m1"]
    want(stock, "new")
    assert end(stock)[KEPT:] == ["-m1", "+new"]


def test_idle_ones_end_and_silent_ones_are_declined_for_a_while(clock: list[int]) -> None:
    stock = Quiet()
    want(stock, "a")
    want(stock, "a")
    [oven] = stock._ovens.values()
    oven.ready, oven.due = True, None
    clock[0] += IDLE - 1
    stock.beat()
    assert stock.did == ["+a"]
    clock[0] += 1
    stock.beat()
    assert stock.did == ["+a", "-a"]
    want(stock, "a")
    want(stock, "a")
    clock[0] += IMPORT_TIMEOUT
    stock.beat()
    assert stock.did == ["+a", "-a", "+a", "-a"]
    want(stock, "a")
    want(stock, "a")
    assert len(stock.did) == 4
    clock[0] += DECLINED_FOR
    stock.beat()
    want(stock, "a")
    want(stock, "a")
    assert end(stock) == ["+a", "-a", "+a", "-a", "+a"]
