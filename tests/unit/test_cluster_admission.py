"""Who is let in at the door of a server, and the credentials that are shown there."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from grampus.cluster.admission import Admission
from grampus.cluster.credentials import Credentials, read_credentials, write_credentials
from grampus.cluster.join_token import new_secret, secret_hash
from grampus.errors import FolderError
from grampus.protocol import PROTOCOL_VERSION, Hello, Join, Joined
from grampus.rpc.subject import Subject

SERVER_SECRET = new_secret(b"s" * 32)
WORKER_SECRET = new_secret(b"w" * 32)
KEYS = {"w1": "key-of-w1"}
SECRETS = {"w1": secret_hash(WORKER_SECRET)}


def hello(role: str, node: str, credential: str = "", cluster: str = "abc") -> Hello:
    return Hello(PROTOCOL_VERSION, "control", role, node, cluster, credential)


def certificate(role: str, name: str, key: str = "", cluster: str = "abc") -> Subject:
    return Subject(cluster, role, name, key)


ENCRYPTED = Admission("abc", KEYS.get, encrypted=True, server_secret=SERVER_SECRET)
PLAIN = Admission("abc", SECRETS.get, encrypted=False, server_secret=SERVER_SECRET)


def test_with_tls_the_certificate_lets_in() -> None:
    assert ENCRYPTED.refuses(hello("server", "s1"), certificate("server", "s1")) == ""
    assert ENCRYPTED.refuses(hello("worker", "w1"), certificate("worker", "w1", "key-of-w1")) == ""
    # The cluster need not be known to who has a certificate of it.
    assert ENCRYPTED.refuses(hello("server", "s1", "", ""), certificate("server", "s1")) == ""


@pytest.mark.parametrize(
    ("said", "shown", "why"),
    [
        (hello("server", "s1"), None, "no certificate"),
        (hello("server", "s1", SERVER_SECRET), None, "no certificate"),
        (hello("server", "w1"), certificate("worker", "w1", "key-of-w1"), "for worker w1"),
        (hello("server", "s2"), certificate("server", "s1"), "for server s1"),
        (hello("worker", "w2"), certificate("worker", "w1", "key-of-w1"), "for worker w1"),
        (hello("worker", "s1"), certificate("server", "s1"), "for server s1"),
        (hello("worker", "w1"), certificate("worker", "w1", "an-older-key"), "was removed"),
        (hello("worker", "w9"), certificate("worker", "w9", ""), "was removed"),
        (hello("server", "s1"), certificate("server", "s1", "", "abd"), "of cluster abd"),
        (hello("server", "s1", "", "abd"), certificate("server", "s1"), "this is cluster abc"),
        (hello("user", "u"), certificate("server", "s1"), "a server or a worker"),
    ],
)
def test_with_tls_nothing_else_does(said: Hello, shown: Subject | None, why: str) -> None:
    assert why in ENCRYPTED.refuses(said, shown)


def test_without_tls_the_credential_of_the_role_lets_in() -> None:
    assert PLAIN.refuses(hello("server", "s1", SERVER_SECRET), None) == ""
    assert PLAIN.refuses(hello("worker", "w1", WORKER_SECRET), None) == ""


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (hello("server", "s1", WORKER_SECRET), "wrong credential"),
        (hello("server", "s1", ""), "wrong credential"),
        (hello("worker", "w1", SERVER_SECRET), "was removed"),
        (hello("worker", "w2", WORKER_SECRET), "was removed"),
        (hello("worker", "w1", ""), "was removed"),
        (hello("worker", "w1", secret_hash(WORKER_SECRET)), "was removed"),
        (hello("server", "s1", "\u00e9" * 52), "wrong credential"),
    ],
)
def test_without_tls_nothing_else_does_and_nothing_is_told(said: Hello, why: str) -> None:
    reason = PLAIN.refuses(said, None)
    assert why in reason
    assert not said.credential or said.credential not in reason


def test_a_server_without_a_secret_lets_in_nobody_who_shows_none() -> None:
    nobody = Admission("abc", {}.get, encrypted=False)
    assert nobody.refuses(hello("server", "s1", ""), None) == "wrong credential"


def test_whoever_wants_to_join_needs_nothing_but_the_right_cluster() -> None:
    for admission in (ENCRYPTED, PLAIN):
        assert admission.refuses(hello("join", "w7", "", ""), None) == ""
        assert "not abd" in admission.refuses(hello("join", "w7", "", "abd"), None)


def test_credentials_are_kept_for_their_owner_only(tmp_path: Path) -> None:
    assert read_credentials(tmp_path) == Credentials()
    for credentials in (
        Credentials(worker=WORKER_SECRET), Credentials(SERVER_SECRET, WORKER_SECRET),
    ):  # fmt: skip
        write_credentials(tmp_path, credentials)
        path = tmp_path / "credentials.toml"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert read_credentials(tmp_path) == credentials
    path.chmod(0o644)
    with pytest.raises(FolderError, match="chmod 600"):
        read_credentials(tmp_path)


@pytest.mark.parametrize("text", ['server = "', "server = 1", 'server = "a\\nb"', "\udcff"])
def test_a_damaged_file_is_not_used(text: str, tmp_path: Path) -> None:
    path = tmp_path / "credentials.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    path.chmod(0o600)
    with pytest.raises(FolderError, match="damaged"):
        read_credentials(tmp_path)


def test_no_secret_is_in_a_repr() -> None:
    said = [
        hello("server", "s1", SERVER_SECRET),
        Join(1, "id", SERVER_SECRET, "server", "s2", "", (), b"", ""),
        Joined("abc", "h", SERVER_SECRET, b"", b"", SERVER_SECRET.encode(), ("127.0.0.1:8471",)),
        Credentials(SERVER_SECRET, SERVER_SECRET),
    ]
    assert SERVER_SECRET not in repr(said)
