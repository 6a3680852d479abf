"""Sessions and locks as a Python program and `grampus kv lock` have them, beside a real server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cli_node import Node, published

from grampus.errors import InvalidInput, LockLost, NoQuorum, NotFound, Refused, SessionUnknown
from grampus.sdk.client import Client

COMMAND = [sys.executable, "-m", "grampus.cli.main", "kv", "lock"]


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    for name in list(os.environ):
        if name.startswith("GRAMPUS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("GRAMPUS_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "etc"))
    with published(tmp_path, tmp_path / "state") as node:
        yield node


@pytest.fixture
def client(node: Node) -> Iterator[Client]:
    with Client() as client:
        yield client


def within(seconds: float, what: Callable[[], bool]) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_session_outlives_its_time_while_it_is_kept_and_takes_its_keys_along(
    client: Client,
) -> None:
    with client.kv.session("s", ttl=2.0) as session:
        client.kv.put("/mine", "1", session=session)
        time.sleep(2.5)
        assert session.lives
        assert client.kv.get("/mine").session == session.id
    assert not session.lives
    with pytest.raises(NotFound):
        client.kv.get("/mine")
    with pytest.raises(SessionUnknown):
        client.kv.put("/mine", "2", session=session)


def test_a_transaction_is_done_in_a_session_only_while_that_lives(client: Client) -> None:
    mine = {"put": {"key": "/mine", "value": "1", "ephemeral": True}}
    stays = {"put": {"key": "/stays", "value": "1"}}
    with client.kv.session("s") as session:
        assert client.kv.txn([], [mine, stays], session=session).succeeded
        assert client.kv.get("/mine").session == session.id
        client._transport.ask("DELETE", f"/api/v1/sessions/{session.id}")
        # Its holder does not know it yet.
        with pytest.raises(SessionUnknown):
            client.kv.txn([], [{"put": {"key": "/late", "value": ""}}], session=session)
    assert [key.key for key in client.kv.range("/")] == ["/stays"]
    with pytest.raises(SessionUnknown):
        client.kv.txn([], [stays], session=session)
    with pytest.raises(InvalidInput, match="takes a session"):
        client.kv.txn([], [mine])


def test_who_is_not_confirmed_lets_go_though_nobody_says_so(client: Client, node: Node) -> None:
    session = client.kv.session("s", ttl=1.0)
    client.kv.put("/mine", "1", session=session)
    node.cut_off = True
    within(10, lambda: not session.lives)
    node.cut_off = False
    within(10, lambda: "/mine" not in [key.key for key in client.kv.range("/mine")])
    with pytest.raises(SessionUnknown):
        session.lock("job")
    session.close()


def test_a_lock_is_waited_for_and_its_token_grows(client: Client) -> None:
    told: list[str] = []
    first = client.kv.lock("job")
    with pytest.raises(Refused, match=r"not free within 0\.3 s"):
        client.kv.lock("job", 0.3)
    assert len(list(client.kv.range("/locks/job/"))) == 1

    def in_line() -> None:
        told.append("waits")
        first.release()

    with client.kv.lock("job", 60, in_line=in_line) as second:
        assert second.token > first.token
        assert second.held
        assert not first.held
        with pytest.raises(LockLost):
            first.check()
    assert told == ["waits"]
    assert list(client.kv.range("/locks/")) == []


def test_who_stands_in_line_stays_while_nobody_answers(client: Client, node: Node) -> None:
    first = client.kv.lock("job")
    session = client.kv.session("s", ttl=10.0)
    place = node.keys.lock
    asked: list[str] = []

    async def lost(name: str, session: int, patience: float) -> int:
        asked.append(name)
        raise NoQuorum("nobody leads")

    node.keys.lock = lost  # type: ignore[method-assign]
    later = threading.Timer(1.0, lambda: (setattr(node.keys, "lock", place), first.release()))
    later.start()
    # Less than one request waits for: what is not answered does not use it up.
    assert session.lock("job", 8) > first.token
    assert asked
    later.join()
    session.close()


def lock(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_command_runs_while_its_lock_is_held(client: Client) -> None:
    script = "echo $GRAMPUS_LOCK $GRAMPUS_FENCING_TOKEN; exit 3"
    process = lock("job", "--", "sh", "-c", script)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (3, "")
    name, token = out.split()
    assert name == "job"
    with client.kv.lock("job") as held:
        assert held.token > int(token)
        busy = lock("--wait", "100ms", "job", "true")
        _, err = busy.communicate(timeout=20)
        assert (busy.returncode, "not free within 0.1 s" in err) == (4, True)
    missing = lock("job", "no-such-command")
    _, err = missing.communicate(timeout=20)
    assert (missing.returncode, "cannot be started" in err) == (2, True)
    killed = lock("job", "sh", "-c", "kill -9 $$")
    killed.communicate(timeout=20)
    assert killed.returncode == 137
    assert list(client.kv.range("/locks/")) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_without_a_command_it_is_held_until_it_is_told_to_stop(client: Client, number: int) -> None:
    process = lock("-o", "json", "job")
    assert process.stdout is not None
    told = json.loads("".join(iter(process.stdout.readline, "}\n")) + "}")
    assert told["lock"] == "job"
    (place,) = client.kv.range("/locks/job/")
    assert (place.session, place.create_revision) == (told["session"], told["token"])
    process.send_signal(number)
    _, err = process.communicate(timeout=20)
    assert (process.returncode, "lock job is given up" in err) == (0, True)
    assert list(client.kv.range("/locks/")) == []


@pytest.mark.parametrize("trap", ["trap 'echo told; exit 0' TERM", "trap '' TERM"])
def test_a_command_is_ended_before_its_lock_is_lost(node: Node, trap: str) -> None:
    """It is told to end, and killed when it does not."""
    script = f"{trap}; echo $$; while :; do sleep 0.05; done"
    process = lock("--ttl", "5s", "job", "sh", "-c", script)
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    node.cut_off = True
    begun = time.monotonic()
    within(20, lambda: not alive(pid))
    assert time.monotonic() - begun < 5.0
    out, err = process.communicate(timeout=20)
    assert process.returncode == 4
    assert out == ("told\n" if "told" in trap else "")
    assert "its command was ended" in err
    node.cut_off = False


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
