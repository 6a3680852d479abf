-- The metadata center, version 1. Times are wall milliseconds, spans milliseconds.
-- meta: numbers of the ledger as a whole.
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;

-- One row per key that exists. session: whose end deletes it, or 0.
CREATE TABLE kv (
    key BLOB PRIMARY KEY, value BLOB NOT NULL, created INTEGER NOT NULL, modified INTEGER NOT NULL,
    version INTEGER NOT NULL, session INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX kv_of_session ON kv (session) WHERE session != 0;

-- What changed, for watches: `place` is the order within a revision; value NULL is a delete.
CREATE TABLE kv_history (
    revision INTEGER NOT NULL, place INTEGER NOT NULL, at INTEGER NOT NULL, key BLOB NOT NULL,
    value BLOB, created INTEGER NOT NULL, version INTEGER NOT NULL, session INTEGER NOT NULL,
    PRIMARY KEY (revision, place)
) WITHOUT ROWID;

-- One row. bytes: of keys and values, with an allowance per key. rows and row_bytes: of the
-- history. compacted: nothing up to this revision can be watched any more.
CREATE TABLE keyspace (
    id INTEGER PRIMARY KEY CHECK (id = 1), bytes INTEGER NOT NULL, rows INTEGER NOT NULL,
    row_bytes INTEGER NOT NULL, compacted INTEGER NOT NULL
);
INSERT INTO keyspace (id, bytes, rows, row_bytes, compacted) VALUES (1, 0, 0, 0, 0);

-- Sessions that live. instance: random, by which a repeated opening is known. acked: answers to
-- requests up to this one were received. keys: how many it owns.
CREATE TABLE cluster_session (
    id INTEGER PRIMARY KEY, instance TEXT NOT NULL UNIQUE, name TEXT NOT NULL,
    ttl INTEGER NOT NULL, opened INTEGER NOT NULL, acked INTEGER NOT NULL, keys INTEGER NOT NULL
);

-- Answers to requests of living sessions that may be asked for again.
CREATE TABLE cluster_result (
    session INTEGER NOT NULL, seq INTEGER NOT NULL, answer BLOB NOT NULL,
    PRIMARY KEY (session, seq)
) WITHOUT ROWID;

-- What lets nodes join. hash: of the secret. name: the one it is for, or ''. used, used_by, key:
-- when, by whom, and by what that node is known.
CREATE TABLE join_token (
    id TEXT PRIMARY KEY, hash TEXT NOT NULL, role TEXT NOT NULL, name TEXT NOT NULL,
    created INTEGER NOT NULL, expires INTEGER NOT NULL, used INTEGER, used_by TEXT NOT NULL,
    key TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX join_token_by_end ON join_token (expires, id);

-- Workers that have joined. key: hash of the public key, or of the credential, they show.
CREATE TABLE worker_key (
    name TEXT PRIMARY KEY, key TEXT NOT NULL, token TEXT NOT NULL, at INTEGER NOT NULL
) WITHOUT ROWID;
