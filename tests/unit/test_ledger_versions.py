"""The apply version of a ledger: raised by a command, never skipped, never taken back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from msgspec import Struct

from grampus import upkeep, versions
from grampus.cluster import apply as cluster_apply
from grampus.cluster.commands import Delete, Put, encode_command
from grampus.cluster.keyspace import Keyspace
from grampus.cluster.values import KeysChanged
from grampus.errors import FolderError, Outdated, VersionMismatch
from grampus.ledger import Ledger
from grampus.runs import apply as runs_apply
from grampus.upkeep import RaiseVersion


class Mark(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="mark"):
    key: bytes


def put_twice(space: Keyspace, command: Put) -> object:
    cluster_apply.APPLY[1][Put](space, command)
    return cluster_apply.APPLY[1][Put](space, command)


def mark(space: Keyspace, command: Mark) -> str:
    space.db.execute("INSERT INTO mark (key, at) VALUES (?, 1)", (command.key,))
    return "marked"


def learn_version_2(patch: pytest.MonkeyPatch) -> None:
    """This process knows it from now on: a changed handler, a new command, a new table."""
    table = {**cluster_apply.APPLY[1], Put: put_twice, Mark: mark}
    patch.setitem(cluster_apply.APPLY, 2, table)
    patch.setitem(runs_apply.APPLY, 2, runs_apply.APPLY[1])
    patch.setitem(versions.SCRIPTS, 2, (("tests.acceptance.next_grampus", "schema_2.sql"),))


PUT = encode_command(Put(1, b"/k", b"v"))
MARK = msgspec.msgpack.encode(Mark(b"/k"))


def raising(to: int) -> bytes:
    return upkeep.encode_command(RaiseVersion(1, to))


def version_of_key(ledger: Ledger) -> int:
    found: int = ledger.database.value("SELECT version FROM kv WHERE key = ?", (b"/k",))
    return found


def test_a_new_ledger_begins_with_the_first_version_whatever_the_program_knows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    learn_version_2(monkeypatch)
    ledger = Ledger(None)
    assert (ledger.apply_version, versions.newest()) == (1, 2)
    ledger.close()


def test_handlers_and_schema_count_from_the_next_command_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    learn_version_2(monkeypatch)
    ledger = Ledger(None)
    answers, facts = ledger.apply(1, 1, [PUT, raising(2), MARK, PUT, raising(1)])
    assert answers[1:3] == [2, "marked"]
    assert answers[4] == 2  # it was raised already
    assert version_of_key(ledger) == 1 + 2
    assert [f.revision for f in facts if isinstance(f, KeysChanged)] == [1, 2, 3]
    assert ledger.database.query("SELECT count(*), max(revision) FROM kv_history") == [(3, 3)]
    assert ledger.apply_version == 2
    ledger.close()


def test_what_is_not_known_here_stops_the_process_and_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "ledger.db"
    for entry, why in (
        (raising(2), r"entry 2 .* raises the ledger to apply version 2, 1 is known here"),
        (MARK, r"entry 2 cannot be carried out here \(Invalid value 'mark'"),
        (b"\x92\xa6kv-put", r"this server is older than its cluster: entry 2"),
        (msgspec.msgpack.encode(["kv-delete", 1, b"/k", b"", None, "more"]), "older than its"),
    ):
        path.unlink(missing_ok=True)
        ledger = Ledger(path)
        ledger.apply(1, 1, [PUT])
        with pytest.raises(Outdated, match=why):
            ledger.apply(2, 1, [encode_command(Delete(1, b"/k")), entry])
        ledger.close()
        again = Ledger(path)
        assert (again.applied_index, again.apply_version, version_of_key(again)) == (1, 1, 1)
        again.close()
    # The newer program goes on from there.
    learn_version_2(monkeypatch)
    ledger = Ledger(path)
    with pytest.raises(Outdated, match="Mark is not of apply version 1"):
        ledger.apply(2, 1, [MARK])
    ledger.close()
    ledger = Ledger(path)
    ledger.apply(2, 1, [raising(2), MARK])
    ledger.close()
    # And there is no way back.
    monkeypatch.undo()
    with pytest.raises(FolderError, match="there is no way back"):
        Ledger(path)


def test_a_command_of_the_next_version_is_refused_before_it_is_in_the_log(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    learn_version_2(monkeypatch)
    ledger = Ledger(None)
    ledger.admit([PUT, raising(2)])
    with pytest.raises(VersionMismatch, match="grampus cluster status says which is behind"):
        ledger.admit([PUT, MARK])
    ledger.apply(1, 1, [raising(2)])
    ledger.admit([PUT, MARK])
    ledger.close()


def test_versions_are_complete() -> None:
    """Every number has its tables and its scripts, and a later one forgets no command."""
    numbers = list(range(1, versions.newest() + 1))
    for table in (cluster_apply.APPLY, runs_apply.APPLY, versions.SCRIPTS):
        assert sorted(table) == numbers
    for tables in (cluster_apply.APPLY, runs_apply.APPLY):
        for number in numbers[1:]:
            assert set(tables[number - 1]) <= set(tables[number])  # type: ignore[index]
    tags = [
        kind.__struct_config__.tag
        for kind in [*versions.command_types(versions.newest()), *upkeep.TYPES]
    ]
    assert len(tags) == len(set(tags))


SCRIPT = """
from pytest import MonkeyPatch
from grampus.consensus.members import MemberChange, Members
from grampus.model.member import Member
from grampus.upkeep import TakeSum, TellSum
from tests.unit.test_ledger_versions import *
learn_version_2(MonkeyPatch())
ledger, index, members = Ledger(None), 0, Members()
def apply(*commands):
    global index
    index += 1
    ledger.apply(index, 1, list(commands))
def change(conf, **said):
    global index, members
    index += 1
    members = members.after(conf, MemberChange(**said))
    ledger.apply_members(index, 1, members.encode())
servers = [Member(7919 ** n % 10007, f"s{n}", "h", n, n) for n in range(1, 9)]
ids = [server.id for server in servers]
for n in range(1, 9):
    change((ids[: n // 2], ids[n // 2 : n], [], [], False), comes=tuple(servers[:n]))
    apply(PUT, encode_command(Put(n, b"/k/%d" % n, b"v")), upkeep.encode_command(TakeSum(n)))
    apply(*[upkeep.encode_command(TellSum(n, index, id, "s")) for id in ids])
change((ids[4:], [], ids[:3], ids[3:4], True), lost=tuple(ids[2:5]))
apply(PUT, raising(2), MARK, PUT)
change((ids[5:], [], [], [], False), lost=(ids[6],))
apply(*[encode_command(Put(n, b"/k/%d" % n, b"w")) for n in range(20)])
print(ledger.checksum(), members.removed, ledger.members.hex())
"""


def test_processes_with_other_hash_seeds_have_the_same_members_and_versions() -> None:
    said = {
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(["src", ".", *sys.path])},
            capture_output=True, text=True, check=True, timeout=60,
        ).stdout
        for seed in ("1", "2", "3")
    }  # fmt: skip
    assert len(said) == 1
    assert "(" in said.pop()
