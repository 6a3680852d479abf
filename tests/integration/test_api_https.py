"""The API of a node that other machines can reach: HTTPS, and nobody else gets the token."""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from grampus.clock import SystemClock
from grampus.rpc.tls import Https
from grampus.rpc.tls_folder import TlsFolder

COMMAND = [sys.executable, "-m", "grampus.cli.main"]
#: Loopback, spelled so that it is not recognised: what is listened at stays on this machine.
UNRECOGNISED = "127.1"


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("GRAMPUS_")}
    return kept | {
        "GRAMPUS_STATE": str(tmp_path / "state"),
        "XDG_CONFIG_HOME": str(tmp_path / "etc"),
        "GRAMPUS_DATA": str(tmp_path / "data"),
    }


@contextmanager
def up(env: dict[str, str]) -> Iterator[str]:
    """A node that is ready; gives its URL."""
    with subprocess.Popen(
        [*COMMAND, "up", "--listen", f"{UNRECOGNISED}:0", "--slots", "1"],
        env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.fullmatch(r"ready (https://127\.1:\d+)\n", line)
            assert found, process.communicate(timeout=10)[1]
            yield found[1]
        finally:
            process.terminate()
            try:
                process.wait(30)
            finally:
                process.kill()


def grampus(env: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], env=env, capture_output=True, text=True, timeout=60
    )


def test_a_node_that_others_can_reach_speaks_https_only(
    env: dict[str, str], tmp_path: Path
) -> None:
    folder = TlsFolder(tmp_path / "data")
    with up(env) as url:
        port = url.rpartition(":")[2]
        address = f"https://127.0.0.1:{port}"
        # This user's commands find node, token and authority by themselves.
        done = grampus(env, "worker", "list", "-o", "json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)[0]["state"] == "LIVE"
        # Elsewhere token and authority have to be given.
        token = (tmp_path / "data/token").read_text().strip()
        away = env | {"GRAMPUS_STATE": str(tmp_path / "none"), "GRAMPUS_TOKEN": token}
        refused = grampus(away, "worker", "list", "--server", address)
        assert refused.returncode == 3
        assert "its certificate is not trusted" in refused.stderr
        assert "GRAMPUS_CA" in refused.stderr
        for more in (["--ca", str(folder.ca)], []):
            with_ca = away | ({} if more else {"GRAMPUS_CA": str(folder.ca)})
            done = grampus(with_ca, *more, "worker", "list", "--server", address)
            assert done.returncode == 0, done.stderr
        plain = grampus(away, "worker", "list", "--server", address.replace("https", "http"))
        assert plain.returncode == 3
        assert "https://" in plain.stderr
        _ordinary_clients_verify_it(address, folder)
    authority = folder.ca.read_bytes()
    with up(env):
        # Clients that trust it go on.
        assert folder.ca.read_bytes() == authority


def _ordinary_clients_verify_it(address: str, folder: TlsFolder) -> None:
    """By any name of the machine, and as strictly as newer Pythons do."""
    port = address.rpartition(":")[2]
    context = ssl.create_default_context(cafile=folder.ca)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    for name in ("localhost", "127.0.0.1"):
        answer = httpx.get(f"https://{name}:{port}/healthz", verify=context, trust_env=False)
        assert answer.status_code == 200
    assert Https(folder).context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_a_false_server_does_not_get_the_token(env: dict[str, str], tmp_path: Path) -> None:
    """Somebody listens where the node was, with a certificate of an authority of his own."""
    real, false = TlsFolder(tmp_path / "real"), TlsFolder(tmp_path / "false")
    for folder in (real, false):
        folder.path.parent.mkdir()
        folder.found("abc", "s1", [], SystemClock().now())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(false.certificate, false.key)
    heard: list[bytes] = []

    def listen(listener: socket.socket) -> None:
        sock, _ = listener.accept()
        try:
            with context.wrap_socket(sock, server_side=True) as secure:
                heard.append(secure.recv(65536))
        except OSError:
            pass
        finally:
            sock.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=listen, args=(listener,))
        thread.start()
        port = listener.getsockname()[1]
        away = env | {"GRAMPUS_TOKEN": "a-secret-token", "GRAMPUS_CA": str(real.ca)}
        done = grampus(away, "worker", "list", "--server", f"https://127.0.0.1:{port}")
        thread.join(20)
    assert done.returncode == 3
    assert "its certificate is not trusted" in done.stderr
    assert b"a-secret-token" not in b"".join(heard)


def test_an_authority_that_cannot_be_read_is_one_line(env: dict[str, str], tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("no certificate")
    for path in (wrong, tmp_path / "missing.pem"):
        done = grampus(env, "--ca", str(path), "worker", "list", "--server", "https://127.0.0.1:1")
        assert done.returncode == 2
        assert f"the authority in {path} cannot be used" in done.stderr
        assert "Traceback" not in done.stderr
