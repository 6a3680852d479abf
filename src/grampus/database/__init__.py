"""SQLite, as thin as it can be. The only importer of apsw, which carries a SQLite of its own."""

from grampus.database.database import Database, Value
from grampus.database.failure import StorageFailed
from grampus.database.migrations import Migration, migrate

__all__ = ["Database", "Migration", "StorageFailed", "Value", "migrate"]
