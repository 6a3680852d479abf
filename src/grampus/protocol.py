"""Every message between a server and a worker, as one tagged union with one version number.

The worker connects, says `Hello` with role `worker`, gets `Welcome`, then asks for `Register`.
After that both sides speak at will. `Sync` is the truth, `Assign` and `Kill` are fast paths of it:
any of the three may be lost, doubled or late without harm, because an attempt's number `n` is dense
per session and a number once seen never starts again. Reports are repeated until they are
acknowledged. Times are wall milliseconds. Bulk data (logs, blobs) goes over a connection of its
own.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from grampus.model.member import Member
from grampus.model.number import Count, Int64, Time
from grampus.model.run import AttemptState, Value

#: Raised with every release that changes messages. Whoever is one ahead or one behind is let in:
#: the newer of the two says nothing that the older does not know.
PROTOCOL_VERSION = 1
#: Largest frame on a control connection and on a bulk connection, in bytes.
CONTROL_FRAME = 512 * 1024
BULK_FRAME = 8 * 1024 * 1024
#: On the lane for keys: a piece of a watch is a MiB and one revision more.
KEYS_FRAME = 2 * 1024 * 1024
#: A Hello is at most this long and comes within this time.
HELLO_FRAME = 1024
HELLO_TIMEOUT = 5.0


def not_spoken(version: int) -> str:
    """Why one who says Hello in that version is not let in; "" when he is."""
    if abs(version - PROTOCOL_VERSION) <= 1:
        return ""
    return (
        f"protocol {version} is not spoken here, {PROTOCOL_VERSION} is, and the one before and"
        " after: install a Grampus that is nearer to this one"
    )


class Stamp(Struct, frozen=True, array_like=True):
    """That a server's folder was in use at some time: see `consensus/trail.py`."""

    number: int
    value: int


class Hello(Struct, frozen=True, array_like=True, tag="hello"):
    """First message of a connection, from whoever connects."""

    version: int
    #: `control`, `bulk`, or `keys`.
    lane: str
    #: `worker`, `server`, or `join` for one who is neither yet.
    role: str
    node: str
    #: Empty when not known yet.
    cluster: str
    #: Empty where a certificate tells who it is.
    credential: str
    #: Of a server: the history of its ledger, and its Raft id.
    history: str = ""
    id: int = 0
    #: Of a server: where it is answered, also by one whose ledger does not name it yet.
    listens: Member | None = None
    #: Of a server, and of one who wants to become it: the newest apply version that it knows.
    apply: int = 0
    #: Of a server: the newest stamp of its folder, its term, and the last entry of its log.
    stamp: Stamp | None = None
    term: int = 0
    last: int = 0

    def __repr__(self) -> str:
        return f"Hello(lane={self.lane!r}, role={self.role!r}, node={self.node!r})"


class Welcome(Struct, frozen=True, array_like=True, tag="welcome"):
    version: int
    node: str
    cluster: str
    #: Of a server, to a server: the newest apply version that it knows.
    apply: int = 0
    #: To a server: whether it is to tell its stamps; and the newest one that was seen of it.
    stamps: bool = False
    seen: Stamp | None = None
    #: To a worker, and on the lane for keys: the history of the ledger, and its newest revision.
    history: str = ""
    revision: int = 0
    #: To a server: the term of who answers, and the last entry that he was answered for in it.
    term: int = 0
    acknowledged: int = 0


class Goodbye(Struct, frozen=True, array_like=True, tag="goodbye"):
    """The connection is closed, with the reason."""

    reason: str


class Register(Struct, frozen=True, array_like=True, tag="register"):
    """A worker asks for its session; answered by `Registered`, `Elsewhere`, or an
    error."""

    name: str
    #: Random id of the warden's incarnation: attempts belong to it.
    instance: str
    machine: str
    boot: str
    group: str
    slots: Annotated[int, Meta(ge=1, le=10_000)]
    pid: int
    containment: str
    #: True when every containment of earlier incarnations in this folder was seen empty.
    clean: bool
    #: Random id of its data folder.
    folder: str = ""
    #: Its attempts have leases: somebody watches over them there, and it sends Pings.
    leased: bool = False


class Registered(Struct, frozen=True, array_like=True, tag="registered"):
    session: int
    #: HOST:PORT where the servers listen for nodes, as far as they are known.
    servers: tuple[str, ...] = ()


class Ping(Struct, frozen=True, array_like=True, tag="ping"):
    """A keep-alive: a worker that has leases sends one every second."""

    session: int


class Pong(Struct, frozen=True, array_like=True, tag="pong"):
    """A majority has said, after the Ping came, that this server leads. All leases of the worker's
    attempts begin anew, at the moment at which it sent that Ping."""


class Leave(Struct, frozen=True, array_like=True, tag="leave"):
    """A worker that is stopped, and has nothing left: its session ends. Answered by `Left`."""

    session: int


class Left(Struct, frozen=True, array_like=True, tag="left"):
    """The session is over."""


class Elsewhere(Struct, frozen=True, array_like=True, tag="elsewhere"):
    """The answer to Register of a server that does not lead."""

    #: HOST:PORT where the leader listens for nodes; empty when not known.
    leader: str


class Invocation(Struct, frozen=True, array_like=True):
    """All that a worker needs to run one attempt, beside the bundle and blobs that it can fetch."""

    run: str
    workflow: str
    version: int
    task: str
    attempt: int
    #: Revision of the attempt's start: grows with every attempt of the cluster.
    fencing_token: int
    #: model.workflow.Task as JSON.
    spec: bytes
    #: Params of the run as one JSON object.
    params: bytes
    #: Planned tick in ms, or the time of submission for a run started by hand.
    tick: int
    tz: str
    bundle: str | None
    #: Outputs of upstream tasks that the task's templates mention, by task name.
    #: A task without output is absent.
    inputs: dict[str, Value]


class Assign(Struct, frozen=True, array_like=True, tag="assign"):
    session: int
    n: int
    invocation: Invocation


class Kill(Struct, frozen=True, array_like=True, tag="kill"):
    session: int
    n: int
    reason: str


class Sync(Struct, frozen=True, array_like=True, tag="sync"):
    """At `revision`, of all numbers below `next_n` exactly `live` may run; `stop` of those must
    end."""

    session: int
    revision: int
    next_n: int
    live: list[int]
    stop: list[int]


class Synced(Struct, frozen=True, array_like=True, tag="synced"):
    """The answer to Sync: what the worker has, and what of `live` it has never seen."""

    session: int
    revision: int
    running: list[int]
    missing: list[int]


#: Bounds of a report, well above what a worker of ours tells: with an inline output it fits into a
#: command, so that none is in the way of the others that are proposed with it.
ERROR_LIMIT = 8_000
_Name = Annotated[str, Meta(max_length=400)]
ExceptionNames = Annotated[tuple[_Name, ...], Meta(max_length=64)]


class Report(Struct, frozen=True, array_like=True, tag="report"):
    """An attempt's state moved up. Final states repeat until acknowledged."""

    session: Int64
    n: Int64
    state: AttemptState
    #: When it happened on the worker.
    at: Time
    #: Exit code; -signal when a signal ended it; None while it runs.
    exit: Int64 | None = None
    #: One or a few lines for people: why it failed.
    error: Annotated[str, Meta(max_length=ERROR_LIMIT)] = ""
    #: Class names of the exception that ended a Python task, most derived first.
    exception: ExceptionNames = ()
    output: Value | None = None
    #: Bytes of stdout and stderr.
    stdout: Count = 0
    stderr: Count = 0
    #: `at` on the steady clock of the worker's machine, in ms since boot; 0 when not known.
    ticks: Count = 0
    #: From its start to its end on that clock, in ms; None while it runs, and when it never ran.
    took: Count | None = None


class Reports(Struct, frozen=True, array_like=True, tag="reports"):
    reports: list[Report]
    #: When this was sent, by the clocks that `Report.at` and `Report.ticks` are of; 0: not known.
    at: Time = 0
    ticks: Count = 0

    def ago(self, report: Report) -> int:
        """How long before this was sent it happened, in ms. The steady clock is asked first: the
        other may have jumped, and is not the server's."""
        if self.ticks and report.ticks:
            return max(0, self.ticks - report.ticks)
        return max(0, self.at - report.at) if self.at else 0


class Ack(Struct, frozen=True, array_like=True, tag="ack"):
    """These final reports are committed (`done`) or came too late (`stale`): forget them."""

    session: int
    done: list[int]
    stale: list[int]


class Load(Struct, frozen=True, array_like=True, tag="load"):
    """How the worker is: CPU in percent of the machine, free memory in bytes."""

    session: int
    cpu: int
    memory: int
    #: Why it can start nothing, or "".
    trouble: str = ""
    #: Attempts that are still there long after KILL was sent to them: they keep their slots.
    stuck: tuple[int, ...] = ()


class Forget(Struct, frozen=True, array_like=True, tag="forget"):
    """These runs were deleted: remove their logs."""

    runs: list[str]


class ReadLog(Struct, frozen=True, array_like=True, tag="read-log"):
    """Bytes of one stream of one attempt, from `offset`; answered by LogChunk. Bulk lane."""

    session: int
    n: int
    run: str
    task: str
    attempt: int
    #: `stdout` or `stderr`.
    stream: str
    offset: int
    limit: int


class LogChunk(Struct, frozen=True, array_like=True, tag="log-chunk"):
    """`data` starts at `offset` (moved up when the middle was cut); `end` when no more will
    come."""

    offset: int
    data: bytes
    end: bool
    #: Bytes left out before `data` because the stream passed its cap.
    skipped: int = 0
    #: Bytes written to the stream so far.
    size: int = 0


class HasBlob(Struct, frozen=True, array_like=True, tag="has-blob"):
    hash: str


class GetBlob(Struct, frozen=True, array_like=True, tag="get-blob"):
    hash: str
    offset: int


class PutBlob(Struct, frozen=True, array_like=True, tag="put-blob"):
    """One piece, in order; the one with `last` makes the blob durable under its hash."""

    hash: str
    offset: int
    data: bytes
    last: bool


class BlobPiece(Struct, frozen=True, array_like=True, tag="blob-piece"):
    """Answer to the three above: `size` is -1 when the server does not have the blob."""

    size: int
    data: bytes = b""


# -- between servers ------------------------------------------------------------------------------


class RaftMessages(Struct, frozen=True, array_like=True, tag="raft"):
    """Messages of the sender's Raft node, in order, as Raft encodes them. May be lost."""

    messages: list[bytes]
    #: Somebody on the sender waits for what is committed next: it is told at once.
    keen: bool = False


class Stamped(Struct, frozen=True, array_like=True, tag="stamped"):
    """A server's folder has a new stamp, or the one that it told in its Hello, and knows the one
    that it was welcomed with."""

    stamp: Stamp


class Propose(Struct, frozen=True, array_like=True, tag="propose"):
    """A follower passes commands on to the leader; answered by Proposed."""

    commands: list[bytes]


class Proposed(Struct, frozen=True, array_like=True, tag="proposed"):
    #: `done`, `not-leader` or `overloaded` (nothing happened), `unknown` (it may have).
    outcome: str
    #: What `apply` answered, one per command, encoded together.
    results: bytes = b""
    reason: str = ""
    #: Whoever has applied this sees what was done.
    index: int = 0


class ReadIndex(Struct, frozen=True, array_like=True, tag="read-index"):
    """The leader is asked which index a linearizable read has to wait for."""


class ReadIndexed(Struct, frozen=True, array_like=True, tag="read-indexed"):
    #: 0 when the one asked does not lead.
    index: int


class PutSnapshot(Struct, frozen=True, array_like=True, tag="put-snapshot"):
    """One piece of a ledger, in order; a piece at offset 0 begins anew. Answered by TookSnapshot.

    With the last piece comes Raft's own message, which takes the whole into use."""

    manifest: bytes
    offset: int
    data: bytes
    last: bool
    message: bytes = b""


class TookSnapshot(Struct, frozen=True, array_like=True, tag="took-snapshot"):
    #: False when the whole does not have the hash and size that its manifest names.
    ok: bool


class ClusterAsk(Struct, frozen=True, array_like=True, tag="cluster-ask"):
    """A server asks the leader about the members, or to change them; answered by ClusterTold."""

    #: `status`, `remove`, `replace`, `transfer` or `admit`.
    action: str
    name: str = ""
    #: Of `admit`: who comes.
    member: Member | None = None


class ClusterTold(Struct, frozen=True, array_like=True, tag="cluster-told"):
    #: The cluster afterwards, as `/api/v1/cluster` shows it: JSON.
    body: bytes
    #: To one who was admitted: the members of that moment, as the ledger has them.
    members: bytes = b""


# ---- joining a cluster, and staying in it


class GetAuthority(Struct, frozen=True, array_like=True, tag="get-authority"):
    """Asks a server for the certificate of its cluster's authority, before it is trusted."""


class AuthorityIs(Struct, frozen=True, array_like=True, tag="authority"):
    """`certificate` as PEM; empty where there is no TLS. To be compared with the token's hash."""

    certificate: bytes


class Join(Struct, frozen=True, array_like=True, tag="join"):
    """Asks to become a node; answered by `Joined`. Repeated with the same key, it gets the same
    answer."""

    version: int
    #: Id and secret of the join token.
    token: str
    secret: str
    #: `server` or `worker`.
    role: str
    name: str
    #: Where a server listens for nodes, and by what else it is called.
    address: str
    hosts: tuple[str, ...]
    #: A request for a certificate (DER); empty where there is no TLS.
    request: bytes
    #: Hash of its public key; without TLS of the credential that it will show.
    key: str

    def __repr__(self) -> str:
        return f"Join(token={self.token!r}, role={self.role!r}, name={self.name!r})"


class Joined(Struct, frozen=True, array_like=True, tag="joined"):
    """What the new node needs to know."""

    cluster: str
    history: str
    #: Without TLS: what a server shows to the others; empty for a worker, which has its own.
    credential: str
    #: With TLS: the node's certificate with the authority's behind it, and the authority's, as PEM.
    certificate: bytes
    ca: bytes
    #: The authority's key, for a server.
    ca_key: bytes
    #: Addresses of servers, for nodes.
    servers: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Joined(cluster={self.cluster!r}, servers={self.servers!r})"


class Renew(Struct, frozen=True, array_like=True, tag="renew"):
    """A node asks for a new certificate for its key, over a connection made with the old one."""

    request: bytes
    hosts: tuple[str, ...] = ()


class Renewed(Struct, frozen=True, array_like=True, tag="renewed"):
    certificate: bytes


# ---- what any server asks the leader for, beside ReadLog


class AskExplanation(Struct, frozen=True, array_like=True, tag="ask-explanation"):
    """Why a run, or a task of it, waits; answered by Explained."""

    run: str
    #: Empty for the run as a whole.
    task: str


class Explained(Struct, frozen=True, array_like=True, tag="explained"):
    #: `runs.explanation.Explanation` as msgpack; empty when there is no such run or task.
    explanation: bytes


class AskPresence(Struct, frozen=True, array_like=True, tag="ask-presence"):
    """Which workers are connected; answered by Present."""


class PresentWorker(Struct, frozen=True, array_like=True):
    session: int
    cpu: int | None
    memory: int | None
    containment: str | None
    trouble: str
    #: How many of its attempts cannot be killed.
    stuck: int = 0


class Present(Struct, frozen=True, array_like=True, tag="present"):
    workers: list[PresentWorker]


class AskClock(Struct, frozen=True, array_like=True, tag="ask-clock"):
    """Whether schedules are held back because the clock is in doubt; `trust` ends the doubt.
    Answered by ClockTold."""

    trust: bool = False


class ClockTold(Struct, frozen=True, array_like=True, tag="clock-told"):
    #: What is, or was until now, in doubt; "" for nothing.
    doubt: str


# ---- keys: requests of the lane `keys`


class KeysAsk(Struct, frozen=True, array_like=True, tag="keys-ask"):
    """One request for the metadata center; answered by KeysTold."""

    #: `cluster.requests.Request`, encoded.
    body: bytes


class KeysTold(Struct, frozen=True, array_like=True, tag="keys-told"):
    #: `cluster.requests.Answer`, encoded.
    body: bytes


Message = (
    Hello
    | Welcome
    | Goodbye
    | Register
    | Registered
    | Elsewhere
    | Ping
    | Pong
    | Leave
    | Left
    | Assign
    | Kill
    | Sync
    | Synced
    | Report
    | Reports
    | Ack
    | Load
    | Forget
    | ReadLog
    | LogChunk
    | HasBlob
    | GetBlob
    | PutBlob
    | BlobPiece
    | RaftMessages
    | Stamped
    | Propose
    | Proposed
    | ReadIndex
    | ReadIndexed
    | PutSnapshot
    | TookSnapshot
    | GetAuthority
    | AuthorityIs
    | Join
    | Joined
    | Renew
    | Renewed
    | ClusterAsk
    | ClusterTold
    | AskExplanation
    | Explained
    | AskPresence
    | Present
    | AskClock
    | ClockTold
    | KeysAsk
    | KeysTold
)
