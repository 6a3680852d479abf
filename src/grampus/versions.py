"""What this program knows of apply versions: for each, who carries out which command, and the
scripts that lead to its schema.

Rules. The ledger's version is a number in the ledger. It begins with FIRST, whatever program makes
the file, so that a log that is applied from its beginning gives the same ledger for ever; and it is
raised by a command (`upkeep.RaiseVersion`). What was released under a number never changes: a
handler that decides otherwise, a new command, a new column are of the next number, which takes over
all that stays. A command that needs one more field is a new command. The number of a script is that
of the version that it leads to; a version that changes no table has an empty list of scripts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib.resources import files
from typing import Any

from msgspec import Struct

from grampus.cluster import apply as cluster_apply
from grampus.cluster.keyspace import Keyspace
from grampus.database import Migration
from grampus.runs import apply as runs_apply
from grampus.runs.change import Change

FIRST = 1
#: By version: files of packages, in the order in which they run.
SCRIPTS: dict[int, tuple[tuple[str, str], ...]] = {
    1: (("grampus.cluster", "schema.sql"), ("grampus.runs", "schema.sql")),
}


class Handlers(Struct, frozen=True):
    """Of one version."""

    keys: dict[type[Any], Callable[[Keyspace, Any], object]]
    runs: dict[type[Any], Callable[[Change, Any], object]]


def newest() -> int:
    """Known to this program."""
    return max(runs_apply.APPLY)


def handlers(version: int) -> Handlers:
    return Handlers(cluster_apply.APPLY[version], runs_apply.APPLY[version])


def command_types(to: int) -> list[type[Any]]:
    """Of all versions up to `to`."""
    tables: Iterable[dict[type[Any], Any]] = (
        table
        for tables in (cluster_apply.APPLY, runs_apply.APPLY)
        for version, table in tables.items()
        if version <= to
    )
    return list(dict.fromkeys(kind for table in tables for kind in table))


def migrations() -> list[Migration]:
    return [
        Migration(
            number,
            "\n".join(files(package).joinpath(name).read_text() for package, name in scripts),
        )
        for number, scripts in sorted(SCRIPTS.items())
    ]
