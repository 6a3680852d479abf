"""Every message between processes of a cluster, as one tagged union with one version number.

The worker connects, says `Hello` with role `worker`, gets `Welcome`, then asks for `Register`.
After that both sides speak at will. Each conversation is a module of its own; new fields go at the
end of a struct, with a default.
"""

from __future__ import annotations

from grampus.protocol.attempts import (
    ERROR_LIMIT,
    Ack,
    Assign,
    ExceptionNames,
    Forget,
    Invocation,
    Kill,
    Report,
    Reports,
    Sync,
    Synced,
)
from grampus.protocol.bulk import BlobPiece, GetBlob, HasBlob, LogChunk, PutBlob, ReadLog
from grampus.protocol.greeting import Goodbye, Hello, Stamp, Welcome
from grampus.protocol.joining import AuthorityIs, GetAuthority, Join, Joined, Renew, Renewed
from grampus.protocol.keys import KeysAsk, KeysTold
from grampus.protocol.leader import (
    AskClock,
    AskExplanation,
    AskPresence,
    ClockTold,
    ClusterAsk,
    ClusterTold,
    Explained,
    Present,
    PresentWorker,
)
from grampus.protocol.peers import (
    Propose,
    Proposed,
    PutSnapshot,
    RaftMessages,
    ReadIndex,
    ReadIndexed,
    Stamped,
    TookSnapshot,
)
from grampus.protocol.session import Elsewhere, Leave, Left, Load, Ping, Pong, Register, Registered
from grampus.protocol.version import (
    BULK_FRAME,
    CONTROL_FRAME,
    HELLO_FRAME,
    HELLO_TIMEOUT,
    KEYS_FRAME,
    PROTOCOL_VERSION,
    not_spoken,
)

__all__ = [
    "BULK_FRAME",
    "CONTROL_FRAME",
    "ERROR_LIMIT",
    "HELLO_FRAME",
    "HELLO_TIMEOUT",
    "KEYS_FRAME",
    "PROTOCOL_VERSION",
    "Ack",
    "AskClock",
    "AskExplanation",
    "AskPresence",
    "Assign",
    "AuthorityIs",
    "BlobPiece",
    "ClockTold",
    "ClusterAsk",
    "ClusterTold",
    "Elsewhere",
    "ExceptionNames",
    "Explained",
    "Forget",
    "GetAuthority",
    "GetBlob",
    "Goodbye",
    "HasBlob",
    "Hello",
    "Invocation",
    "Join",
    "Joined",
    "KeysAsk",
    "KeysTold",
    "Kill",
    "Leave",
    "Left",
    "Load",
    "LogChunk",
    "Message",
    "Ping",
    "Pong",
    "Present",
    "PresentWorker",
    "Propose",
    "Proposed",
    "PutBlob",
    "PutSnapshot",
    "RaftMessages",
    "ReadIndex",
    "ReadIndexed",
    "ReadLog",
    "Register",
    "Registered",
    "Renew",
    "Renewed",
    "Report",
    "Reports",
    "Stamp",
    "Stamped",
    "Sync",
    "Synced",
    "TookSnapshot",
    "Welcome",
    "not_spoken",
]

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
