"""When a certificate is renewed, and what happens when that fails."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import ssl
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from grampus.cluster.renewing import by_own_authority, by_server
from grampus.errors import FolderError, ProtocolError, ServerUnreachable
from grampus.protocol import Message, Renew, Renewed, Welcome
from grampus.rpc import certificates
from grampus.rpc.certificates import (
    NODE_LIFE,
    SKEW,
    Authority,
    certificate_request,
    found_authority,
    life,
    new_key,
    request_key,
)
from grampus.rpc.renewal import FIRST_RETRY, LOOK, Renewal
from grampus.rpc.tls import NodeTls
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
        #: What is answered in place of a good certificate.
        self.answer: bytes | None = None
        #: Why the new one cannot be shown.
        self.mute: Exception | None = None
        self.waits: list[float] = []
        self._issue = by_own_authority(folder, ["192.0.2.7"], self.clock)
        self.renewal = Renewal(folder, self.issue, self.renewed, self.clock, self.sleep)

    def renewed(self) -> None:
        if self.mute is not None:
            raise self.mute
        self.told += 1

    async def issue(self, request: bytes) -> bytes:
        if self.broken is not None:
            raise self.broken
        if self.answer is not None:
            return self.answer
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
    assert "was not renewed, the one in use holds for 121 days" in first
    assert first.endswith("the next try is in 1 min: no server is connected")
    scene.clock.time = NOW + NODE_LIFE + 1
    scene.look()
    assert "and the one in use has ended" in caplog.records[-1].getMessage()
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


def of_another_authority(folder: TlsFolder) -> bytes:
    return Authority(*found_authority("abc", NOW)).issue(
        folder.request(), "abc", "server", "s1", [], DUE
    )


def unknown_signature(folder: TlsFolder) -> bytes:
    """As its own authority's, but by an algorithm that nobody has heard of."""
    sha256 = bytes.fromhex("06082a8648ce3d040302")
    der = ssl.PEM_cert_to_DER_cert(own(folder, DUE).decode().split("-----END")[0] + _END)
    assert der.count(sha256) == 2
    return ssl.DER_cert_to_PEM_cert(der.replace(sha256, sha256[:-1] + b"\x7f")).encode()


_END = "-----END CERTIFICATE-----\n"


def own(folder: TlsFolder, now: int, name: str = "s1", request: bytes = b"") -> bytes:
    return folder.authority().issue(request or folder.request(), "abc", "server", name, [], now)


def without_uses(folder: TlsFolder) -> bytes:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(certificates, "_uses", lambda role: [ExtendedKeyUsageOID.CLIENT_AUTH])
        return own(folder, DUE)


BAD_ANSWERS: dict[str, tuple[Callable[[TlsFolder], bytes], str]] = {
    "of another authority": (of_another_authority, "compare tls/ca.pem on all servers"),
    "for another key": (
        lambda folder: own(folder, DUE, request=certificate_request(new_key())),
        "it is for server s1 of cluster abc, not for .* and its key",
    ),
    "for another name": (lambda folder: own(folder, DUE, "s2"), "it is for server s2"),
    "that has ended": (
        lambda folder: own(folder, DUE - 2 * NODE_LIFE), "it has ended on .*are the clocks",
    ),
    "of tomorrow": (lambda folder: own(folder, DUE + DAY), "does not hold before .*the clocks"),
    "of yesteryear": (lambda folder: own(folder, NOW - DAY), "it ends before the one in use"),
    "for callers only": (without_uses, "it is not made for what a server does"),
    "signed in a strange way": (unknown_signature, "compare tls/ca.pem on all servers"),
    "of garbage": (lambda folder: b"\xff" * 100, "no certificate"),
    "of nothing": (lambda folder: b"", "no certificate"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD_ANSWERS)
def test_the_old_one_stays_in_use_after_an_answer(
    kind: str, folder: TlsFolder, caplog: pytest.LogCaptureFixture
) -> None:
    make, why = BAD_ANSWERS[kind]
    bad, scene, before = make(folder), Scene(folder, DUE), contents(folder)
    scene.answer = bad
    assert scene.look() == FIRST_RETRY
    assert contents(folder) == before
    assert scene.told == 0
    NodeTls(folder)
    (record,) = caplog.records
    assert re.search(f"the one in use holds for 121 days.*cannot be used: .*{why}", record.message)
    scene.answer = None  # the next server answers as it should
    assert scene.look() == LOOK
    assert scene.told == 1
    assert contents(folder) != before


def contents(folder: TlsFolder) -> dict[str, tuple[bytes, int]]:
    return {
        path.name: (path.read_bytes(), stat.S_IMODE(path.stat().st_mode))
        for path in folder.path.iterdir()
    }


def test_of_an_answer_only_the_certificate_is_kept(folder: TlsFolder) -> None:
    """What stands behind it was not looked at, and a start would fail because of it."""
    scene, modes = Scene(folder, DUE), {name: mode for name, (_, mode) in contents(folder).items()}
    scene.answer = own(folder, DUE) + b"-----BEGIN CERTIFICATE-----\nAAAA\n" + _END.encode()
    assert scene.look() == LOOK
    assert folder.certificate.read_bytes() == own_part(scene.answer) + folder.ca.read_bytes()
    assert {name: mode for name, (_, mode) in contents(folder).items()} == modes
    NodeTls(folder)


def own_part(certificate: bytes) -> bytes:
    return certificate[: certificate.index(_END.encode()) + len(_END)]


def test_one_that_could_not_be_shown_is_shown_later(
    folder: TlsFolder, caplog: pytest.LogCaptureFixture
) -> None:
    scene = Scene(folder, DUE)
    scene.mute = FolderError("the certificate cannot be used: Too many open files")
    assert scene.look() == FIRST_RETRY
    assert folder.ends() == DUE + NODE_LIFE
    # What is told is how long the one holds that others still see.
    assert "the one in use holds for 121 days" in caplog.records[-1].message
    assert "Too many open files" in caplog.records[-1].message
    scene.mute = None
    assert scene.look() == LOOK
    assert scene.told == 1
    assert scene.look() == LOOK
    assert scene.told == 1


@pytest.mark.parametrize("fault", ["readable by others", "gone", "damaged", "half written"])
def test_a_certificate_that_cannot_be_read_stops_nothing(
    fault: str, folder: TlsFolder, caplog: pytest.LogCaptureFixture
) -> None:
    scene, before = Scene(folder, NOW), folder.certificate.read_bytes()
    match fault:
        case "readable by others":
            folder.certificate.chmod(0o644)
        case "gone":
            folder.certificate.unlink()
        case "damaged":
            folder.certificate.write_bytes(b"\0" * len(before))
        case _:
            folder.certificate.write_bytes(before[:100])
    assert scene.look() == FIRST_RETRY
    assert re.search("chmod 600|restore it", caplog.records[-1].message)
    folder.certificate.write_bytes(before)
    folder.certificate.chmod(0o600)
    assert scene.look() == LOOK


def test_an_authority_whose_key_is_anothers_is_told(
    folder: TlsFolder, caplog: pytest.LogCaptureFixture
) -> None:
    (folder.path / "ca-key.pem").write_bytes(found_authority("abc", NOW)[1])
    before = contents(folder)
    assert Scene(folder, DUE).look() == FIRST_RETRY
    assert "copy ca.pem and ca-key.pem from another server" in caplog.records[-1].message
    assert contents(folder) == before


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_crash_at_any_call_leaves_the_old_one_or_the_new_one(
    after: bool, folder: TlsFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call that changes a file is cut off, before or after it is done."""
    old, new = folder.certificate.read_bytes(), own(folder, DUE)
    found = []
    for fuse in range(20):
        folder.certificate.write_bytes(old)
        with monkeypatch.context() as patch:
            calls = Fuse(fuse, after)
            for name in ("open", "fchmod", "fsync"):
                patch.setattr(f"grampus.secret_file.os.{name}", calls.around(getattr(os, name)))
            patch.setattr(Path, "rename", calls.around(Path.rename))
            try:
                folder.renew(new, DUE)
                break
            except SystemExit:
                pass
        found.append(folder.certificate.read_bytes())
        assert found[-1] in (old, new)
        assert {mode for _, mode in contents(folder).values()} <= {0o600, 0o644}
        assert contents(folder)["node.pem"][1] == 0o600
        NodeTls(folder)
    # Aside, its mode, its content synced; renamed; the folder opened and synced.
    assert [each == new for each in found] == [False] * (3 + (not after)) + [True] * (2 + after)


class Fuse:
    """Blows at a call of a given number."""

    def __init__(self, calls: int, after: bool) -> None:
        self._left = calls
        self._after = after

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def fused(*args: Any) -> Any:
            self._left -= 1
            if self._left == -1 and not self._after:
                raise SystemExit
            made = call(*args)
            if self._left == -1:
                raise SystemExit
            return made

        return fused


@pytest.fixture(autouse=True)
def _hear_everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
