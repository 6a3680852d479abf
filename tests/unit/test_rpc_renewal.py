"""When a certificate is renewed, and what happens when that fails."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from grampus.cluster.renewing import by_own_authority, by_server
from grampus.errors import ProtocolError, ServerUnreachable
from grampus.protocol import Message, Renew, Renewed, Welcome
from grampus.rpc.certificates import NODE_LIFE, SKEW, life, request_key
from grampus.rpc.renewal import FIRST_RETRY, LOOK, Renewal
from grampus.rpc.tls_folder import TlsFolder

DAY = 86_400_000
NOW = 1_800_000_000_000
DUE = NOW - SKEW + (NODE_LIFE + SKEW) * 2 // 3


class Clock:
    def __init__(self, now: int) -> None:
        self.time = now

    def now(self) -> int:
        return self.time

    def ticks(self) -> int:
        return self.time


@pytest.fixture
def folder(tmp_path: Path) -> TlsFolder:
    made = TlsFolder(tmp_path)
    made.found("abc", "s1", ["192.0.2.7"], NOW)
    return made


class Scene:
    """A server that renews from its own authority; `told` counts the reloads."""

    def __init__(self, folder: TlsFolder, now: int) -> None:
        self.folder = folder
        self.clock = Clock(now)
        self.told = 0
        self.broken: Exception | None = None
        self.waits: list[float] = []
        self._issue = by_own_authority(folder, ["192.0.2.7"], self.clock)
        self.renewal = Renewal(folder, self.issue, self.renewed, self.clock, self.sleep)

    def renewed(self) -> None:
        self.told += 1

    async def issue(self, request: bytes) -> bytes:
        if self.broken is not None:
            raise self.broken
        return await self._issue(request)

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.clock.time += round(seconds * 1000)
        if len(self.waits) > 9000:
            raise asyncio.CancelledError

    def look(self) -> int:
        return asyncio.run(self.renewal.look())


def test_before_two_thirds_of_its_life_nothing_happens(folder: TlsFolder) -> None:
    before = folder.certificate.read_bytes()
    assert Scene(folder, NOW).look() == LOOK
    assert Scene(folder, DUE - 5000).look() in (5000, 4000)  # certificates count whole seconds
    assert folder.certificate.read_bytes() == before


def test_then_it_is_renewed_for_the_same_key_and_names_and_shown(folder: TlsFolder) -> None:
    subject, scene = folder.subject(), Scene(folder, DUE)
    assert scene.look() == LOOK
    assert scene.told == 1
    assert folder.subject() == subject
    assert life(folder.certificate.read_bytes())[1] == DUE + NODE_LIFE
    assert scene.look() == LOOK
    assert scene.told == 1


def test_a_failure_is_told_with_the_time_left_and_tried_again_later_and_later(
    folder: TlsFolder, caplog: pytest.LogCaptureFixture
) -> None:
    scene = Scene(folder, DUE)
    scene.broken = ServerUnreachable("no server is connected")
    waits = [scene.look() for _ in range(9)]
    assert waits[:3] == [FIRST_RETRY, 2 * FIRST_RETRY, 4 * FIRST_RETRY]
    assert waits[-1] == LOOK
    assert scene.told == 0
    first = caplog.records[0].getMessage()
    assert "was not renewed, it holds for 121 days: no server is connected" in first
    scene.clock.time = NOW + NODE_LIFE + 1
    scene.look()
    assert "and it has expired" in caplog.records[-1].getMessage()
    # Even then: its own authority needs no certificate to be asked.
    scene.broken = None
    assert scene.look() == LOOK
    assert scene.told == 1
    scene.broken = ServerUnreachable("again")
    scene.clock.time += NODE_LIFE
    assert scene.look() == FIRST_RETRY


def test_in_three_years_it_is_renewed_four_times(folder: TlsFolder) -> None:
    scene = Scene(folder, NOW)

    async def live() -> None:
        with pytest.raises(asyncio.CancelledError):
            await scene.renewal.run()

    asyncio.run(live())
    days = (scene.clock.time - NOW) // DAY
    assert scene.told == days * DAY // (DUE - NOW)
    assert max(scene.waits) == LOOK / 1000


def test_a_clock_that_was_wrong_for_a_while_does_no_harm(folder: TlsFolder) -> None:
    scene = Scene(folder, NOW + 20 * 365 * DAY)
    # The authority's own life is over by this clock: nothing can be issued.
    assert scene.look() == FIRST_RETRY
    scene.clock.time = NOW
    assert scene.look() == LOOK
    assert folder.ends() == NOW + NODE_LIFE


def test_a_worker_asks_a_server_and_takes_nothing_but_its_own(folder: TlsFolder) -> None:
    asked: list[Message] = []
    answer: Message = Welcome(1, "s1", "abc")

    async def ask(message: Message, within: float) -> Message:
        asked.append(message)
        return answer

    request = folder.request()
    with pytest.raises(ProtocolError, match="answered by Welcome"):
        asyncio.run(by_server(ask)(request))
    answer = Renewed(b"certificate")
    assert asyncio.run(by_server(ask)(request)) == b"certificate"
    assert all(isinstance(m, Renew) and request_key(m.request) for m in asked)


def test_a_certificate_for_somebody_else_is_not_taken(
    folder: TlsFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = folder.certificate.read_bytes()

    async def wrong(request: bytes) -> bytes:
        return folder.authority().issue(request, "abc", "server", "s2", [], DUE)

    renewal = Renewal(folder, wrong, lambda: None, Clock(DUE))
    assert asyncio.run(renewal.look()) == FIRST_RETRY
    assert folder.certificate.read_bytes() == before
    assert "it is for server s2 of cluster abc" in caplog.text


@pytest.fixture(autouse=True)
def _hear_everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
