"""`grampus cluster` by hand, against three real servers: what it prints, what it leaves with, and
what it does about names, tokens and answers that make no sense."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.cluster import Site, site
from tests.acceptance.node import until

pytestmark = pytest.mark.raft


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("commands")) as made:
        made.grow()
        yield made


def ask(ground: Site, *arguments: str, code: int = 0) -> tuple[str, str]:
    """What it says on stdout and on stderr."""
    done = ground.cli("cluster", *arguments)
    assert done.returncode == code, (arguments, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done.stdout, done.stderr


def test_tokens_are_made_listed_and_taken_back(ground: Site) -> None:
    out, err = ask(ground, "token", "--role", "worker", "--name", "w9", "--life", "30m")
    assert "one worker may join with it until" in err
    token = out.strip()
    id = token.split(".")[2]
    table = {line.split()[0]: line.split()[1:] for line in ask(ground, "tokens")[0].splitlines()}
    assert table["ID"] == ["FOR", "NAME", "STATE"]
    assert table[id][:4] == ["worker", "w9", "open", "until"]
    assert sorted(row[4] for row in table.values() if row[2:4] == ["used", "by"]) == ["b", "c"]
    listed = {line["id"]: line for line in json.loads(ask(ground, "tokens", "-o", "json")[0])}
    assert (listed[id]["role"], listed[id]["name"], listed[id]["used"]) == ("worker", "w9", None)
    assert token.split(".")[3] not in json.dumps(listed), "a secret is told once"
    assert f"the join token {id} counts no more" in ask(ground, "revoke", id)[1]
    assert f"there is no join token {id}" in ask(ground, "revoke", id, code=6)[1]
    assert id not in ask(ground, "tokens")[0]
    made = json.loads(ask(ground, "token", "-o", "json")[0])
    assert (made["role"], made["token"].split(".")[0]) == ("server", "grampus-join")


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ("token --role boss", 2, "--role"),
        ("token --life 5", 2, "10s, 1h30m"),
        ("token --life 1ms", 2, "lives for 1s to 7d"),
        ("token --life 8d", 2, "lives for 1s to 7d"),
        ("token --name a/b", 2, "letters, digits"),
        ("remove nobody --yes", 6, "there are: a, b, c"),
        ("remove b", 2, "say --yes"),
        ("replace b --yes", 4, "b answers: stop it first"),
        ("replace nobody --yes", 6, "there are: a, b, c"),
        ("transfer nobody", 6, "there are: a, b, c"),
        ("check --wait soon", 2, "10s, 1h30m"),
        ("snapshot /no/such/folder/s.tar", 4, "cannot be written"),
        ("restore /no/such/file --name r --listen 127.0.0.1:1 --data r --yes", 2, "no file"),
        ("recover --look --data /no/such/folder", 2, "is no data folder"),
    ],
)
def test_what_makes_no_sense_is_told_and_changes_nothing(
    ground: Site, arguments: str, code: int, told: str
) -> None:
    assert told in ask(ground, *arguments.split(), code=code)[1]
    assert not Path("/no/such/folder").exists()
    members = json.loads(ask(ground, "members", "-o", "json")[0])
    assert [member["name"] for member in members] == ["a", "b", "c"]


def test_a_snapshot_is_restored_only_where_it_can_be(ground: Site, tmp_path: Path) -> None:
    file, folder = tmp_path / "s.tar", tmp_path / "r"
    said = ask(ground, "snapshot", str(file))[1]
    assert f"grampus cluster restore {file} --data DIR" in said

    def restore(source: Path, listen: str, code: int) -> str:
        where = ["--data", str(folder), "--name", "r", "--listen", listen, "--yes"]
        return ask(ground, "restore", str(source), *where, code=code)[1]

    (tmp_path / "other").write_text("no archive")
    assert "is no snapshot" in restore(tmp_path / "other", "127.0.0.1:1", 4)
    assert "is every address" in restore(file, "0.0.0.0:1", 2)
    assert not folder.exists(), "it was refused before anything was made"
    assert "Start it: grampus server start" in restore(file, "127.0.0.1:1", 0)
    assert "has a ledger" in restore(file, "127.0.0.1:1", 4)
    look = json.loads(ask(ground, "recover", "--look", "--data", str(folder), "-o", "json")[0])
    assert (look["servers"], look["uncertain"]) == (["r"], 0)


def test_a_server_is_given_the_lead_and_taken_out(ground: Site) -> None:
    """The last one: there are two servers afterwards."""
    to = ground.others(ground.leader())[0]
    assert f"{to} leads" in ask(ground, "transfer", to)[1]
    assert ground.leader() == to
    out, err = ask(ground, "remove", to, "--yes")
    assert out == ""
    assert f"{to} is removed, and its process ends" in err
    code, _ = ground.servers[to].ended()
    assert code == 4
    text = until(lambda: "2 voters" in (said := ask(ground, "status")[0]) and said)
    assert "can lose  0 of 2 voters" in text
    assert "Two voters survive no loss" in text
    assert len(json.loads(ask(ground, "members", "-o", "json")[0])) == 2
