"""A checksum over all rows of a ledger, and what the servers say of theirs.

Rule: it is a function of the rows alone, whatever the file, its pages and its indexes look like.
Rows are read in the order of their primary keys and encoded in batches, so that most of the time is
spent outside the interpreter; `rest` is called between two batches, so that others get their turn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection

import msgspec

from grampus.database import Database

#: Rows that are read and hashed at once: about a millisecond.
BATCH = 500
#: Rounds of which it is remembered what was told.
ROUNDS = 4
_ENCODER = msgspec.msgpack.Encoder()


def checksum(db: Database, rest: Callable[[], None] = lambda: None) -> str:
    """Of the state that the connection sees; it should be inside a transaction."""
    digest = hashlib.sha256()
    for (table,) in db.query(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite~_%'"
        " ESCAPE '~' ORDER BY name"
    ):
        keys = db.query("SELECT name FROM pragma_table_info(?) WHERE pk > 0 ORDER BY pk", (table,))
        order = ", ".join(name for (name,) in keys)
        digest.update(_ENCODER.encode(table))
        for rows in db.batches(f"SELECT * FROM {table} ORDER BY {order}", BATCH):
            digest.update(_rows(rows))
            rest()
    return digest.hexdigest()


def _rows(rows: list[object]) -> memoryview:
    """Encoded one behind the other, without the head of the list: so that the size of a batch makes
    no difference."""
    return memoryview(_ENCODER.encode(rows))[1 if len(rows) < 16 else 3 :]


class Tally:
    """Who has told which sum, for the newest rounds. What was told before a start is not known."""

    def __init__(self) -> None:
        self._told: dict[int, dict[int, str]] = {}

    def told(self, index: int, server: int, sum: str) -> None:
        self._told.setdefault(index, {})[server] = sum
        while len(self._told) > ROUNDS:
            del self._told[next(iter(self._told))]

    def agreed(self, index: int, voters: Collection[int]) -> str | None:
        """The sum that most of the voters have; None while that is not known."""
        told = self._told.get(index, {})
        sums = [told[voter] for voter in voters if voter in told]
        for sum in sums:
            if 2 * sums.count(sum) > len(voters):
                return sum
        return None

    def sums(self, index: int) -> dict[int, str]:
        """By server, as far as they have told."""
        return dict(self._told.get(index, {}))

    def split(self, index: int, voters: Collection[int]) -> bool:
        """All have told, and no majority has the same: nobody can say who is wrong."""
        told = self._told.get(index, {})
        return all(voter in told for voter in voters) and self.agreed(index, voters) is None
