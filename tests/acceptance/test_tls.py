"""A cluster with TLS as users start it: founding, joining by tokens, work, and the leader's death.

All of it is on loopback, in a spelling (`127.1`) that counts as an address others can reach.
"""

from __future__ import annotations

import json
import socket
import ssl
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from node import COMMAND, PATIENCE, Ground, until

from tests.ports import free_ports

pytest.importorskip("grampus_raft")
pytestmark = pytest.mark.timeout(180)

HOST = "127.1"


class Place:
    """A ground with several processes of Grampus, each with a folder of its name."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.running: dict[str, subprocess.Popen[str]] = {}
        self.tokens = 0
        self.ports = dict(zip(("s1", "s2", "s3"), free_ports(3), strict=True))

    def address(self, name: str) -> str:
        return f"{HOST}:{self.ports[name]}"

    def url(self, name: str) -> str:
        return f"https://{self.address(name)}"

    def start(self, kind: str, name: str, *options: str) -> None:
        log = (self.ground.folder / f"{name}.log").open("a")
        self.running[name] = subprocess.Popen(
            [*COMMAND, kind, "start", "--data", str(self.folder(name)), "--name", name, *options],
            env=self.ground.env, stdout=log, stderr=log, text=True,
        )  # fmt: skip
        log.close()

    def server(self, name: str, *options: str) -> None:
        self.start("server", name, "--listen", self.address(name), *options)

    def folder(self, name: str) -> Path:
        return self.ground.folder / name

    def log(self, name: str) -> str:
        return (self.ground.folder / f"{name}.log").read_text()

    def ready(self, *names: str) -> None:
        for name in names:
            until(lambda name=name: "\nready " in "\n" + self.log(name) or self.ended(name))
            assert not self.ended(name), self.log(name)

    def ended(self, name: str) -> bool:
        return self.running[name].poll() is not None

    def kill(self, name: str) -> None:
        process = self.running.pop(name)
        process.kill()
        process.wait()

    def ask(self, *arguments: str, server: str = "s1") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *arguments, "--server", self.url(server)],
            env=self.ground.env, capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    def token(self, role: str) -> Path:
        """A file with a new join token."""
        made = self.ask("cluster", "token", "--role", role)
        assert made.returncode == 0, made.stderr
        self.tokens += 1
        path = self.ground.write(f"{role}-{self.tokens}.join", made.stdout)
        path.chmod(0o600)
        return path

    def members(self, server: str, key: str, value: str) -> list[str]:
        """Names of those of whom `server` says so."""
        done = self.ask("cluster", "members", "-o", "json", server=server)
        found = json.loads(done.stdout) if done.returncode == 0 else []
        return [member["name"] for member in found if member[key] == value]

    def close(self) -> None:
        for process in self.running.values():
            process.terminate()
        for process in self.running.values():
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def cluster(ground: Ground) -> Iterator[Place]:
    place = Place(ground)
    try:
        yield place
    finally:
        place.close()


def test_three_servers_and_a_worker_work_over_tls_and_survive_their_leader(tmp_path: Path) -> None:
    with cluster(Ground(tmp_path)) as place:
        place.server("s1", "--init")
        place.ready("s1")
        for name in ("s2", "s3"):
            token = place.token("server")
            place.server(name, "--join", place.address("s1"), "--token-file", str(token))
        place.ready("s2", "s3")
        until(lambda: place.members("s2", "role", "voter") == ["s1", "s2", "s3"])
        token = place.token("worker")
        place.start("worker", "w1", "--join", place.address("s2"), "--token-file", str(token))
        place.ready("w1")
        _run(place, "s1")
        _files(place)
        _a_used_token_is_refused(place, token)
        _strangers(place)
        place.kill("s1")
        until(lambda: set(place.members("s2", "state", "leads")) & {"s2", "s3"})
        (leader,) = place.members("s2", "state", "leads")
        _run(place, leader)
        secrets = [token.read_text().strip().rpartition(".")[2], "PRIVATE KEY"]
        for name in ("s1", "s2", "s3", "w1"):
            assert not any(secret in place.log(name) for secret in secrets)
            assert "Traceback" not in place.log(name)


def _run(place: Place, server: str) -> None:
    file = place.ground.write("hello.yaml", "workflow: hello\ntasks: {a: {shell: echo hello}}\n")
    applied = place.ask("workflow", "apply", str(file), server=server)
    assert applied.returncode == 0, applied.stderr
    done = place.ask("run", "start", "hello", "--wait", server=server)
    assert done.returncode == 0, done.stderr
    logs = place.ask("run", "logs", "last", server=server)
    assert "hello" in logs.stdout


def _files(place: Place) -> None:
    """The authority's key is on servers only; nothing secret is for others to read."""
    authorities = set()
    for name in ("s1", "s2", "s3", "w1"):
        folder = place.folder(name) / "tls"
        assert (folder / "ca-key.pem").exists() == name.startswith("s")
        authorities.add((folder / "ca.pem").read_bytes())
        for path in folder.iterdir():
            allowed = 0o644 if path.name == "ca.pem" else 0o600
            assert stat.S_IMODE(path.stat().st_mode) == allowed
    assert len(authorities) == 1


def _a_used_token_is_refused(place: Place, token: Path) -> None:
    place.start("worker", "w2", "--join", place.address("s1"), "--token-file", str(token))
    assert place.running.pop("w2").wait(PATIENCE) == 4
    assert "was used by w1" in place.log("w2")


def _strangers(place: Place) -> None:
    """On every port: words in the clear. At every node port: a worker that says it is a server."""
    worker = place.folder("w1") / "tls"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(worker / "ca.pem")
    context.load_cert_chain(worker / "node.pem", worker / "node-key.pem")
    hello = b"\x93\x00\x00\x99\xa5hello\x01\xa7control\xa6server\xa2w1\xa0\xa0\xa0\x01"
    for port in place.ports.values():
        for target in (port, port + 1):
            with socket.create_connection(("127.0.0.1", target), 5) as sock:
                sock.settimeout(10)
                sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + b"\xff" * 2000)
                with suppress(ConnectionError):
                    assert b"HTTP/1.1 2" not in sock.recv(65536)
        with socket.create_connection(("127.0.0.1", port + 1), 5) as sock:
            with context.wrap_socket(sock) as secure:
                secure.settimeout(10)
                secure.sendall(len(hello).to_bytes(4, "big") + hello)
                answer = secure.recv(65536)
        assert b"goodbye" in answer
        assert b"the certificate is for worker w1" in answer
