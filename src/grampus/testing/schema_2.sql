-- Version 2, of `next_version`. puts: how often the key was put since the upgrade.
ALTER TABLE kv ADD COLUMN puts INTEGER NOT NULL DEFAULT 0;
CREATE TABLE mark (key BLOB PRIMARY KEY, at INTEGER NOT NULL) WITHOUT ROWID;
