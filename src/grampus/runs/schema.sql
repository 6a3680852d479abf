-- The run store, version 1. Times are wall milliseconds, spans milliseconds.
CREATE TABLE workflow (
    name TEXT PRIMARY KEY, version INTEGER NOT NULL, paused INTEGER NOT NULL,
    deleted INTEGER NOT NULL, applied_at INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE workflow_version (
    name TEXT NOT NULL, version INTEGER NOT NULL, content BLOB NOT NULL, bundle TEXT,
    applied_at INTEGER NOT NULL, PRIMARY KEY (name, version)
) WITHOUT ROWID;
CREATE INDEX workflow_version_bundle ON workflow_version (bundle) WHERE bundle IS NOT NULL;

-- remaining: task runs that are not final. failed: a task has ended badly. round: 1, and one more
-- for every retry of the run. expires: when its own timeout passes. expired: it has. alone: it
-- starts only when no other run of its workflow is active.
CREATE TABLE run (
    id TEXT PRIMARY KEY, seq INTEGER NOT NULL, workflow TEXT NOT NULL, version INTEGER NOT NULL,
    state TEXT NOT NULL, reason TEXT NOT NULL, params BLOB NOT NULL, request TEXT NOT NULL,
    priority INTEGER NOT NULL, tick INTEGER NOT NULL,
    created INTEGER NOT NULL, started INTEGER, ended INTEGER,
    tasks INTEGER NOT NULL, remaining INTEGER NOT NULL, failed INTEGER NOT NULL,
    round INTEGER NOT NULL, expires INTEGER, expired INTEGER NOT NULL,
    alone INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE UNIQUE INDEX run_by_seq ON run (seq);
CREATE INDEX run_by_state ON run (state, seq);
CREATE INDEX run_by_workflow ON run (workflow, seq);
CREATE INDEX run_by_workflow_state ON run (workflow, state, seq);
CREATE INDEX run_queued ON run (workflow, priority DESC, seq) WHERE state = 'QUEUED';
CREATE INDEX run_by_end ON run (ended) WHERE ended IS NOT NULL;

-- waits: upstream tasks that have not succeeded yet. failures and lost: attempts that ended so.
CREATE TABLE task_run (
    run TEXT NOT NULL, idx INTEGER NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL,
    attempt INTEGER NOT NULL, failures INTEGER NOT NULL, lost INTEGER NOT NULL,
    waits INTEGER NOT NULL, due INTEGER, started INTEGER, ended INTEGER,
    PRIMARY KEY (run, idx)
) WITHOUT ROWID;

-- lease: in ms, -1 for an attempt that a silent worker keeps.
CREATE TABLE attempt (
    session INTEGER NOT NULL, n INTEGER NOT NULL, run TEXT NOT NULL, task INTEGER NOT NULL,
    attempt INTEGER NOT NULL, state TEXT NOT NULL, slots INTEGER NOT NULL,
    started INTEGER NOT NULL, running INTEGER, ended INTEGER, exit INTEGER, error TEXT NOT NULL,
    stdout INTEGER NOT NULL, stderr INTEGER NOT NULL, token INTEGER NOT NULL,
    lease INTEGER NOT NULL,
    PRIMARY KEY (session, n)
) WITHOUT ROWID;
CREATE UNIQUE INDEX attempt_by_task ON attempt (run, task, attempt);
CREATE INDEX attempt_live ON attempt (session, n) WHERE ended IS NULL;

CREATE TABLE output (
    run TEXT NOT NULL, task INTEGER NOT NULL, encoding TEXT NOT NULL, data BLOB, blob TEXT,
    size INTEGER NOT NULL,
    PRIMARY KEY (run, task)
) WITHOUT ROWID;
CREATE INDEX output_blob ON output (blob) WHERE blob IS NOT NULL;

-- folder: of the worker's data. registered: index at which the worker was heard last. silent: since
-- when it is not, NULL while it is. draining: it gets no new attempts. leased: its attempts have
-- leases.
CREATE TABLE session (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, instance TEXT NOT NULL, machine TEXT NOT NULL,
    boot TEXT NOT NULL, folder TEXT NOT NULL, grp TEXT NOT NULL, slots INTEGER NOT NULL,
    busy INTEGER NOT NULL, next_n INTEGER NOT NULL, opened INTEGER NOT NULL,
    registered INTEGER NOT NULL, silent INTEGER, draining INTEGER NOT NULL,
    leased INTEGER NOT NULL, ended INTEGER, reason TEXT NOT NULL
);
CREATE INDEX session_live ON session (name) WHERE ended IS NULL;
CREATE INDEX session_by_name ON session (name, id);

-- Facts of one run, or of none (run = ''): the latter are kept for a while only.
CREATE TABLE event (
    run TEXT NOT NULL, revision INTEGER NOT NULL, at INTEGER NOT NULL, kind TEXT NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (run, revision)
) WITHOUT ROWID;

-- One row per workflow with a schedule. next_tick: planned, NULL when there is none. since: ticks
-- after it are to be planned, NULL once they are.
CREATE TABLE schedule (
    workflow TEXT PRIMARY KEY, version INTEGER NOT NULL, paused INTEGER NOT NULL, paused_by TEXT NOT NULL,
    next_tick INTEGER, since INTEGER
) WITHOUT ROWID;

-- What became of planned ticks: one row each, or one row for a range that was missed or paused.
CREATE TABLE tick (
    workflow TEXT NOT NULL, tick INTEGER NOT NULL, last INTEGER NOT NULL, count INTEGER NOT NULL,
    outcome TEXT NOT NULL, run TEXT NOT NULL, reason TEXT NOT NULL, at INTEGER NOT NULL,
    PRIMARY KEY (workflow, tick)
) WITHOUT ROWID;
CREATE INDEX tick_by_time ON tick (at);
