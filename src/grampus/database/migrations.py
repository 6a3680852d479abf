"""The schema as numbered scripts; `user_version` in the database is the number of its newest.

Scripts are never edited once released, and hold no BEGIN or COMMIT. Which number is wanted is the
caller's decision: for a replicated database it is part of the replicated `apply_version`.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from grampus.database.database import Database
from grampus.database.failure import StorageFailed


class Migration(Struct, frozen=True):
    """`script` leads from version `number` - 1 to `number`. The first is 1."""

    number: int
    script: str


def schema_version(database: Database) -> int:
    """The number of the newest script run here; 0 for an empty database."""
    version: int = database.value("PRAGMA user_version")
    return version


def migrate(database: Database, migrations: Sequence[Migration], to: int) -> list[int]:
    """Runs what is missing up to number `to`; the numbers that were run.

    Must be called inside a transaction: then all of it happens, or nothing. A database that is
    newer than `to` is refused."""
    if [m.number for m in migrations] != list(range(1, len(migrations) + 1)):
        raise ValueError("migrations are numbered 1, 2, 3, ... without gaps")
    if not 0 <= to <= len(migrations):
        raise ValueError(f"there is no migration {to}")
    have = schema_version(database)
    if have > to:
        raise StorageFailed(
            f"the database has schema {have}, this Grampus knows {to}: use the newer Grampus"
        )
    for migration in migrations[have:to]:
        database.script(migration.script)
        database.execute(f"PRAGMA user_version = {migration.number}")
    return [m.number for m in migrations[have:to]]
