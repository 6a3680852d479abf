"""How a node's address and token are found, and who does not get them."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from grampus.config import Listen
from grampus.errors import UsageError
from grampus.sdk.discovery import canonical, find, nodes, publish, read_token, withdraw

URL = "http://127.0.0.1:8470"


def dead_pid() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_the_file_of_a_node_is_for_its_user_only(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        path = publish(tmp_path / "a/state", URL, "secret", os.getpid())
    finally:
        os.umask(old)
    assert path == tmp_path / "a/state/nodes/8470.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert list(path.parent.iterdir()) == [path]


def test_a_published_node_is_found_with_its_token(tmp_path: Path) -> None:
    publish(tmp_path, URL, "secret", os.getpid())
    (address,) = find(tmp_path, environ={})
    assert (address.url, address.token) == (URL, "secret")


def test_without_a_node_the_default_address_is_tried_without_a_token(tmp_path: Path) -> None:
    (address,) = find(tmp_path, environ={})
    assert (address.url, address.token) == (URL, None)


def test_a_node_on_another_port_is_found_when_it_is_the_only_one(tmp_path: Path) -> None:
    publish(tmp_path, "http://127.0.0.1:9000", "t", os.getpid())
    assert [a.url for a in find(tmp_path, environ={})] == ["http://127.0.0.1:9000"]
    publish(tmp_path, "http://127.0.0.1:9002", "other", os.getpid())
    with pytest.raises(UsageError, match=r"9000, http://127\.0\.0\.1:9002"):
        find(tmp_path, environ={})
    publish(tmp_path, URL, "t", os.getpid())
    assert [a.url for a in find(tmp_path, environ={})] == [URL]


def test_servers_of_one_cluster_have_the_same_token_and_are_tried_in_turn(tmp_path: Path) -> None:
    urls = [f"http://127.0.0.1:{port}" for port in (8470, 9000, 9002)]
    for url in urls:
        publish(tmp_path, url, "same", os.getpid())
    found = find(tmp_path, environ={})
    assert [(a.url, a.token) for a in found] == [(url, "same") for url in urls]
    cluster = (Listen("127.0.0.1", 9000), Listen("10.0.0.1", 8470), Listen("127.0.0.1", 1))
    assert [a.url for a in find(tmp_path, environ={}, cluster=cluster)] == [
        urls[1], "https://10.0.0.1:8470", "http://127.0.0.1:1",
    ]  # fmt: skip
    assert [a.url for a in find(tmp_path, urls[:1], environ={}, cluster=cluster)] == urls[:1]


def test_a_token_goes_to_its_own_address_only(tmp_path: Path) -> None:
    publish(tmp_path, URL, "secret", os.getpid())
    servers = ["http://localhost:8470", "http://127.0.0.2:8470", "http://127.0.0.1:8471"]
    assert [a.token for a in find(tmp_path, servers, environ={})] == ["secret", None, None]


def test_a_token_is_not_shown_to_whoever_took_the_port_of_a_dead_node(tmp_path: Path) -> None:
    publish(tmp_path, URL, "secret", dead_pid())
    assert find(tmp_path, environ={})[0].token is None
    assert nodes(tmp_path) == []


def test_a_node_that_has_ended_is_gone_also_before_its_parent_takes_note(tmp_path: Path) -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        publish(tmp_path, URL, "secret", process.pid)
        assert len(nodes(tmp_path)) == 1
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert nodes(tmp_path) == []


def test_a_process_that_has_got_the_number_of_a_dead_node_is_not_that_node(tmp_path: Path) -> None:
    path = publish(tmp_path, URL, "secret", os.getpid())
    assert [node.token for node in nodes(tmp_path)] == ["secret"]
    born = str(nodes(tmp_path)[0].born)
    path.write_text(path.read_text().replace(born, str(int(born) - 1)))
    assert nodes(tmp_path) == []


def test_a_file_that_others_may_read_is_not_believed(tmp_path: Path) -> None:
    publish(tmp_path, URL, "secret", os.getpid()).chmod(0o644)
    assert nodes(tmp_path) == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"url": 1}', b"\xff" * 100])
def test_a_broken_file_is_as_good_as_none(tmp_path: Path, content: bytes) -> None:
    publish(tmp_path, URL, "secret", os.getpid()).write_bytes(content)
    assert nodes(tmp_path) == []


def test_only_the_node_that_wrote_the_file_takes_it_away(tmp_path: Path) -> None:
    path = publish(tmp_path, URL, "new", os.getpid())
    withdraw(tmp_path, URL, os.getpid() + 1)
    assert path.exists()
    withdraw(tmp_path, URL, os.getpid())
    assert not path.exists()
    withdraw(tmp_path, URL, os.getpid())


def test_a_token_that_is_given_wins_over_file_environment_and_node(tmp_path: Path) -> None:
    publish(tmp_path, URL, "of-node", os.getpid())
    file = tmp_path / "token"
    file.write_text("of-file\n")
    env = {"GRAMPUS_TOKEN": "of-env"}
    assert find(tmp_path, token="given", token_file=file, environ=env)[0].token == "given"
    assert find(tmp_path, token_file=file, environ=env)[0].token == "of-file"
    assert find(tmp_path, environ=env)[0].token == "of-env"


@pytest.mark.parametrize("content", ["", "\n\n", "to\x07ken", "clé"])
def test_a_token_file_without_a_token_is_an_error(tmp_path: Path, content: str) -> None:
    file = tmp_path / "token"
    file.write_text(content)
    with pytest.raises(UsageError, match="holds no token"):
        read_token(file)
    with pytest.raises(UsageError, match="cannot be read"):
        read_token(tmp_path / "none")


def test_a_token_that_no_header_can_carry_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="printable ASCII"):
        find(tmp_path, environ={"GRAMPUS_TOKEN": "a\nb"})


def test_neither_files_nor_addresses_print_their_token(tmp_path: Path) -> None:
    publish(tmp_path, URL, "secret", os.getpid())
    assert "secret" not in repr(nodes(tmp_path)) + repr(find(tmp_path, environ={}))


@pytest.mark.parametrize(
    ("url", "same"),
    [
        ("http://LOCALHOST:8470", "http://127.0.0.1:8470"),
        ("http://0.0.0.0:8470", "http://127.0.0.1:8470"),
        ("http://[::]:1", "http://[::1]:1"),
        ("https://h", "https://h:443"),
        ("http://h/", "http://h:80"),
    ],
)
def test_an_address_has_one_spelling_for_comparison(url: str, same: str) -> None:
    assert canonical(url) == same


@pytest.mark.parametrize("url", ["http://192.0.2.1:8470", "http://example.org", "http://0.0.0.1"])
def test_no_token_goes_over_a_network_in_the_clear(tmp_path: Path, url: str) -> None:
    for how in ({"token": "secret"}, {"environ": {"GRAMPUS_TOKEN": "secret"}}):
        with pytest.raises(UsageError, match="in the clear: write https://"):
            find(tmp_path, [url], **{"environ": {}, **how})  # type: ignore[arg-type]
    secure = url.replace("http:", "https:")
    assert find(tmp_path, [secure], "secret", environ={})[0].token == "secret"
    assert find(tmp_path, [url], environ={})[0].token is None


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://[::1]:1", "http://localhost:1"])
def test_on_this_machine_it_may(tmp_path: Path, url: str) -> None:
    assert find(tmp_path, [url], "secret", environ={})[0].token == "secret"


def test_the_authority_of_this_users_node_is_found_and_a_given_one_wins(tmp_path: Path) -> None:
    url, ca = "https://127.0.0.1:8470", tmp_path / "ca.pem"
    publish(tmp_path, url, "secret", os.getpid(), ca)
    (address,) = find(tmp_path, [url], environ={})
    assert (address.token, address.ca) == ("secret", ca)
    (address,) = find(tmp_path, [url], environ={}, ca=tmp_path / "other.pem")
    assert address.ca == tmp_path / "other.pem"
    # Not for other addresses.
    (address,) = find(tmp_path, ["https://127.0.0.1:8471"], "t", environ={})
    assert address.ca is None
