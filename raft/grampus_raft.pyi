"""One member of one Raft group, without I/O, threads or a clock: tikv's raft-rs as one class.

The driver's turn:
    tick(), step(), propose(), read_index(), ...             # any number of them
    while (rd := node.ready()) is not None:
        send rd's messages                                   # before the write
        write rd's snapshot, entries and hard state          # durably if must_sync
        send rd's persisted_messages                         # never before the write is durable
        commit, messages, committed = node.advance()         # send messages; commit needs no sync
        apply rd's committed, then committed                 # apply_conf_change() for kinds 1 and 2
        node.advance_apply(index of the last one)            # after a received snapshot, its index

Between ready() and advance() only advance, apply_conf_change, advance_apply, has_ready, term and
status may be called (what was got before may still be applied while this is written); the others
raise ValueError. Calls may come from any thread and are serialised; the GIL is released meanwhile.

Three kinds of answer to what cannot be done. ValueError: the arguments or the moment are wrong,
nothing has changed (TypeError and OverflowError as everywhere). RaftError: raft-rs refused, the
node can go on. RaftFatal, from any call: the node is unusable, and the only way on is a new one,
made from what is durable.

The names below RaftNode's errors are types of this stub; at run time they are plain tuples, and the
module has only RaftNode and the four errors.
"""

from typing import Literal, TypeAlias, TypedDict, final

class RaftError(RuntimeError):
    """raft-rs refused the call. The node can go on."""

class ProposalDropped(RaftError):
    """Not leader, or a leader transfer, too many uncommitted bytes, or an unfinished change of
    members is in the way. Nothing was appended: try again later, or at the leader."""

class RaftFatal(RaftError):
    """raft-rs panicked or its log was misused, now or in an earlier call; the message has the
    reason and the place."""

class EntriesLost(RaftFatal):
    """This node lacks entries that it had confirmed to hold. It must not vote again, not even after
    a restart: later calls raise RaftFatal with the same message."""

Entry: TypeAlias = tuple[int, int, int, bytes, bytes]
"""(index, term, kind, data, context). Kind 0: normal (no data: a new leader's first entry, or a
change of members that became void), 1: ConfChange, 2: ConfChangeV2; for these give kind and data
to apply_conf_change() once committed."""

HardState: TypeAlias = tuple[int, int, int]
"""(term, vote, commit); vote 0: none."""

ConfState: TypeAlias = tuple[list[int], list[int], list[int], list[int], bool]
"""(voters, learners, voters_outgoing, learners_next, auto_leave); voters_outgoing is not empty
in a joint configuration."""

Message: TypeAlias = tuple[int, int, bytes]
"""(to, type, encoded). Type 3 carries entries, 7 a snapshot: call report_snapshot() when it was
delivered or lost."""

Snapshot: TypeAlias = tuple[int, int, ConfState, bytes]
"""(index, term, conf_state, data)"""

Read: TypeAlias = tuple[int, bytes]
"""(index, context): once index is applied, the read asked with this context may be served."""

Ready: TypeAlias = tuple[
    bool,
    HardState | None,
    list[Entry],
    Snapshot | None,
    list[Message],
    list[Message],
    list[Entry],
    list[Read],
    tuple[int, int] | None,
]
"""(must_sync, hard_state, entries, snapshot, messages, persisted_messages, committed, reads,
(leader or 0, role)). The first of entries may lie before the end of the log: what was there from
it on is replaced. None: unchanged."""

Peer: TypeAlias = tuple[int, int, int, bool, bool, int]
"""(matched, next, state: 0 probe 1 replicate 2 snapshot, paused, recently active, index of the
snapshot under way or 0)"""

class Status(TypedDict):
    id: int
    term: int
    vote: int
    #: 0 follower, 1 candidate, 2 leader, 3 pre-candidate
    role: int
    #: 0: none known
    leader: int
    commit: int
    applied: int
    first: int
    last: int
    persisted: int
    #: bytes of the entries in memory
    log_bytes: int
    #: bytes proposed here and not yet committed
    uncommitted: int
    #: ticks from the last sign of a leader to the next election
    timeout: int
    #: to whom leadership is being transferred; 0: nobody
    transferee: int
    pending_reads: int
    #: the peer last refused for want of a snapshot at or after `first` - 1; 0: none
    snapshot_wanted_by: int
    #: empty unless leader
    peers: dict[int, Peer]

@final
class RaftNode:
    def __init__(
        self,
        id: int,
        hard_state: HardState,
        conf_state: ConfState,
        base: tuple[int, int],
        entries: list[Entry],
        applied: int,
        *,
        election_tick: int = 10,
        max_election_tick: int = 20,
        heartbeat_tick: int = 2,
        max_size_per_msg: int = 1 << 20,
        max_inflight_msgs: int = 256,
        max_uncommitted_size: int = 64 << 20,
        max_committed_size_per_ready: int = 16 << 20,
        check_quorum: bool = True,
        pre_vote: bool = True,
        lease_read: bool = False,
        priority: int = 0,
        tell_commits: bool = True,
        seed: int | None = None,
    ) -> None:
        """From what is durable. base: (index, term) before the first of entries, which follow it
        without a gap. conf_state: the one as of `applied`, not the newest in the log. base <=
        applied <= commit <= last index must hold: a commit index from disk is a hint and may be
        behind, so pass max(commit, applied).

        *_tick: ticks; an election timeout is drawn from election_tick <= t < max_election_tick,
        from `seed` if one is given. *_size*: bytes. A node that lost its disk must never come back
        under its old id. A joiner starts with an empty conf_state, base (0, 0) and no entries, and
        waits for a snapshot; so the first members start with base (1, 1), applied 1 and a snapshot
        at index 1, for the configuration of the founders is in no entry. Without tell_commits a
        leader sends nothing for the sake of a commit index alone, but while a change of members is
        under way: see tell_commit()."""

    def tick(self) -> bool:
        """One unit of time has passed. True: there is something in ready()."""

    def campaign(self) -> None:
        """Stands for election now. ValueError if it is no voter; nothing happens if it leads
        already, or has a committed change of members to apply."""

    def step(self, messages: list[bytes]) -> int:
        """Handles peers' messages, in order; returns how many were refused (an answer of
        somebody who is no member, or that cannot be true). ValueError when one cannot be
        decoded, is malformed, for another node, or of a type that peers do not send: then none
        was handled. EntriesLost when this node is found to have lost entries that it had
        confirmed. Senders must be authenticated: a forged message can be fatal."""

    def propose(self, items: list[bytes]) -> tuple[int, int]:
        """Appends one normal entry each, all or none: (index of the first, term).
        ProposalDropped; ValueError without items or for an empty one. Appended is not committed:
        the entry at that index is the caller's only if it comes back committed with that term;
        if another term commits there, it was lost."""

    def propose_conf_change(
        self, changes: list[tuple[int, int]], transition: Literal[0, 1, 2], context: bytes
    ) -> tuple[int, int]:
        """changes: (0 add voter | 1 remove | 2 add learner, id). transition: 0 joint only if
        needed, 1 joint and left by itself, 2 joint until a call with no changes leaves it.
        Returns (index, term), as propose(); context becomes the entry's. ProposalDropped;
        ValueError for a wrong change or one that the present configuration forbids. Promote a
        learner only when it has caught up (status()["peers"])."""

    def apply_conf_change(self, kind: int, data: bytes) -> ConfState:
        """For every committed entry of kind 1 or 2, in order; store the result with the applied
        index. Then set_snapshot() at once: a new member refuses a snapshot that does not name
        it. A leader that is no voter any more becomes a follower."""

    def read_index(self, context: bytes) -> bool:
        """Asks for a linearizable read: serve it when ready()'s reads hold (index, context) and
        index is applied. ValueError for an empty context, or one under way. False: not leader,
        or nothing committed in this term yet. A lost leadership drops requests silently: time
        them out, and ask again."""

    def tell_commit(self, to: list[int]) -> None:
        """Tells what is committed to those peers that have not said that they know it, in messages
        of their own: an append without entries, or with those that they lack. Ignored unless
        leader."""

    def transfer_leader(self, to: int) -> None:
        """Proposals are dropped until it succeeds or an election timeout passes. ValueError
        unless `to` is a voter."""

    def report_unreachable(self, id: int) -> None:
        """A message to this peer could not be sent. Ignored unless leader."""

    def report_snapshot(self, id: int, ok: bool) -> None:
        """A message of type 7 was delivered or not. Without a report the peer gets no more
        entries: time it out with ok=False. Ignored unless leader."""

    def has_ready(self) -> bool: ...
    def ready(self) -> Ready | None:
        """What to send, write and apply; None: nothing. advance() must follow."""

    def advance(self) -> tuple[int | None, list[Message], list[Entry]]:
        """After the durable write: (new commit index, messages to send, more committed entries).
        ValueError without a ready()."""

    def advance_apply(self, applied: int) -> None:
        """Everything up to `applied` is in the state machine. ValueError outside old
        applied..last index handed out and durable."""

    def set_snapshot(self, index: int, conf_state: ConfState, data: bytes) -> None:
        """What to send to peers that need compacted entries; base <= index <= applied,
        conf_state as of index. data is kept in memory and sent as one message: pass a manifest
        if the state is large. A received snapshot takes its place."""

    def compact(self, index: int) -> None:
        """Drops entries up to index from memory; ValueError past `applied`. A snapshot before
        index then counts as none, so register a newer one for the peers that are behind."""

    def term(self, index: int) -> int:
        """Of the entry at index; 0 outside the log."""

    def status(self) -> Status: ...
