"""Who looks after the membership: answers what a cluster looks like, and carries out what a person
or `membership` wants changed. On a server that does not lead it asks the leader's steward.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence

import msgspec

from grampus.consensus.bearer import void_key
from grampus.consensus.hearing import LATELY
from grampus.consensus.members import MOST, MemberChange
from grampus.consensus.membership import LEARNER, REMOVE, VOTER, next_step, survives
from grampus.consensus.peers import Peers
from grampus.consensus.port import Stopped
from grampus.consensus.replica import RaftReplica
from grampus.consensus.roll import (
    Load,
    Roll,
    advice,
    advice_on_version,
    complaint_of,
    lines,
    spare,
)
from grampus.consensus.upgrade import Known, common_version, held_back
from grampus.errors import (
    GrampusError,
    NoQuorum,
    NotFound,
    NotLeader,
    OutcomeUnknown,
    Overloaded,
    ProtocolError,
    Refused,
    ServerUnreachable,
)
from grampus.model.member import Member
from grampus.protocol import ClusterAsk, ClusterTold

log = logging.getLogger("grampus.cluster")

#: Seconds between two looks at what could be changed, and that a change may take.
LOOK, WITHIN = 0.5, 15.0
#: And that a leader may take to say how the cluster is, before another server says what it knows.
GLANCE = 1.0
#: Looks of a new leader at who is there.
GLANCES = 15
#: How often a change waits for an earlier one, and for how long each time, in seconds.
PATIENT, PAUSE = 40, 0.2
#: How often another server is asked to lead, and seconds that it has each time.
TRANSFERS, TRANSFER = 5, 1.5
#: Looks that the others have to say that their disks are no better.
SLOW_LOOKS = 5
_MAYBE = "it may happen yet: see grampus cluster status"
_JSON = msgspec.json.Encoder()


class Steward:
    """A Clerk of the office: `run` changes the members by itself, on the leader only."""

    def __init__(
        self,
        replica: RaftReplica,
        peers: Peers,
        me: Member,
        cluster: str,
        history: str,
        *,
        apply_version: Callable[[], int],
        newest: int,
        load: Callable[[str], Load | None] = lambda name: None,
    ) -> None:
        """`apply_version` is that of the ledger, `newest` the newest that this program knows;
        `load` is what the member of a name says of itself."""
        self._load = load
        self._replica = replica
        self._peers = peers
        self._me = me
        self._cluster = cluster
        self._history = history
        self._apply_version = apply_version
        self._newest = newest
        self._stopping = False
        #: Looks in a row at which the disk of this server was not well.
        self._slow = 0

    # -- the clerk ------------------------------------------------------------------------------

    def committed(self, index: int, facts: Sequence[object]) -> None:
        return

    def stop(self) -> None:
        self._stopping = True

    async def run(self, epoch: int) -> None:
        """Until cancelled or stopped."""
        while not self._stopping:
            await asyncio.sleep(LOOK)
            replica = self._replica
            await self._relieve()
            step = next_step(replica.members, replica.peers, replica.commit_index)
            if step is None or not replica.leader:
                continue
            log.info("the members change: %s", step.why)
            try:
                await replica.change_members(list(step.changes), MemberChange(), joint=step.joint)
            except Stopped:
                return
            except (GrampusError, TimeoutError) as error:
                log.warning("the members did not change: %s", error)

    # -- what is asked of it --------------------------------------------------------------------

    async def ask(self, action: str, name: str = "") -> bytes:
        """`status` `remove` `replace` `transfer`: the cluster afterwards, as JSON.

        Raises NotFound, Refused, NotLeader, NoQuorum, OutcomeUnknown."""
        return (await self.relay(ClusterAsk(action, name))).body

    async def relay(self, asked: ClusterAsk) -> ClusterTold:
        """The answer, here or from the leader. Raises as `ask`."""
        if self._replica.leader:
            return await self.answer(asked)
        leader = self._replica.leader_id
        if asked.action == "status" and not self._peers.connected(leader):
            return self._told()
        if not leader:
            raise NoQuorum("no server leads, so the members cannot change: see cluster status")
        try:
            within = GLANCE if asked.action == "status" else WITHIN + 1.0
            told = await self._peers.ask(leader, asked, within)
        except (ServerUnreachable, Refused) as error:
            if asked.action == "status":
                return self._told()
            if isinstance(error, ServerUnreachable):
                raise OutcomeUnknown(f"{error}; {_MAYBE}") from error
            raise
        if not isinstance(told, ClusterTold):
            raise ProtocolError(f"ClusterAsk was answered by {type(told).__name__}")
        return told

    async def answer(self, asked: ClusterAsk) -> ClusterTold:
        """On the leader."""
        if not self._replica.leader:
            raise NotLeader("this server leads no longer: ask again")
        try:
            return await self._answer(asked)
        except TimeoutError:
            raise OutcomeUnknown(
                f"a majority of the servers has not agreed within {WITHIN:g} s; {_MAYBE}"
            ) from None

    async def _answer(self, asked: ClusterAsk) -> ClusterTold:
        async with asyncio.timeout(WITHIN):
            if asked.action in ("remove", "replace", "transfer"):
                await self._listen()
            for left in reversed(range(PATIENT)):
                try:
                    return await self._act(asked)
                except Overloaded:
                    # An earlier change is not applied yet: look again at what there is after it.
                    if not left:
                        raise
                await asyncio.sleep(PAUSE)
        raise AssertionError

    async def _act(self, asked: ClusterAsk) -> ClusterTold:
        match asked.action:
            case "status":
                pass
            case "remove":
                member = self._named(asked.name)
                if member.id == self._replica.id and self._replica.members.voters != (member.id,):
                    return await self._leave(asked)
                await self._remove(member)
            case "replace":
                await self._replace(self._named(asked.name))
            case "transfer":
                await self._transfer(self._named(asked.name))
            case "admit" if asked.member is not None:
                await self._admit(asked.member)
            case _:
                raise ProtocolError(f"{asked.action!r} is nothing that a steward does")
        return self._told(asked.action == "admit")

    async def _listen(self) -> None:
        """A new leader has not heard of everybody yet, and would call them silent: it waits until
        it has, or `LATELY` seconds."""
        replica = self._replica
        for _ in range(GLANCES):
            heard = {id for id, peer in replica.peers.items() if peer[4]} | {replica.id}
            if replica.led >= 1000 * LATELY or heard.issuperset(
                m.id for m in replica.members.known
            ):
                return
            await asyncio.sleep(LATELY / GLANCES)

    def _told(self, admitted: bool = False) -> ClusterTold:
        members = self._replica.members.encode() if admitted else b""
        return ClusterTold(_JSON.encode(self._roll()), members)

    def _named(self, name: str) -> Member:
        found = self._replica.members.named(name)
        if not found:
            names = ", ".join(sorted(member.name for member in self._replica.members.known))
            raise NotFound(f"no server is named {name}; there are: {names}")
        lost = self._replica.members.lost
        return next((member for member in found if member.id not in lost), found[0])

    async def _remove(self, member: Member) -> None:
        members = self._replica.members
        if members.voters == (member.id,):
            raise Refused(f"{member.name} is the only voter: a cluster cannot be without one")
        replica = self._replica
        answer = [peer for peer, of in replica.peers.items() if peer == replica.id or of[4]]
        if member.id in members.voters and not survives(members, member.id, answer):
            raise Refused(
                f"without {member.name} too few voters would answer for a majority: start the"
                " silent ones first, or replace them; see grampus cluster status"
            )
        await self._replica.change_members([(REMOVE, member.id)], MemberChange())
        log.info("server %s is removed", member.name)

    async def _relieve(self) -> None:
        """A leader whose disk is slow lets one lead whose disk is not: everybody waits for the
        leader's, and Raft would let it lead for ever."""
        replica = self._replica
        told = replica.disks.get(replica.id)
        self._slow = self._slow + 1 if told else 0
        heirs = self.heirs()
        if told is None or self._slow < SLOW_LOOKS or not replica.leader:
            return
        if not heirs or heirs[0] in replica.disks:
            if self._slow == SLOW_LOOKS:
                log.warning("%s, and no other server is better off", complaint_of(told))
            return
        log.warning("%s, and lets another server lead", complaint_of(told))
        try:
            await self.give_lead(replica.term, heirs[0])
        except GrampusError as error:
            log.warning("nobody else leads yet: %s", error)

    async def give_lead(self, term: int, to: int = 0) -> None:
        """To that voter, or to the fittest one. Raft gives a transfer up when it takes longer
        than an election, without a word: so it is asked for again."""
        replica = self._replica
        for _ in range(TRANSFERS):
            if not replica.leader or replica.term != term:
                return
            await replica.transfer(to or self._best_peer())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TRANSFER):
                    return await replica.deposed(term)
        raise Refused("no other server could take the lead over in time: ask again")

    async def _leave(self, asked: ClusterAsk) -> ClusterTold:
        """This server leads, and is to be removed: the next leader does it."""
        replica, term = self._replica, self._replica.term
        await self.give_lead(term)
        await replica.succeeded()
        if replica.leader:
            raise NotLeader("this server leads again: nobody could take over from it; ask again")
        return await self.relay(asked)

    async def _replace(self, member: Member) -> None:
        if member.id == self._replica.id:
            raise Refused(f"{member.name} answers this very request: it is not lost")
        members, peer = self._replica.members, self._replica.peers.get(member.id)
        if peer is not None and peer[4]:
            raise Refused(f"{member.name} answers: stop it first, if its folder is to be given up")
        await self._replica.change_members(
            # Raft's part changes nothing: it stays what it is until its successor has caught up.
            [(LEARNER if member.id in members.learners else VOTER, member.id)],
            MemberChange(lost=(member.id,)),
        )
        log.info("server %s is given up: its successor may join", member.name)

    async def _transfer(self, member: Member) -> None:
        if member.id not in self._replica.members.voters:
            raise Refused(f"{member.name} is no voter, and cannot lead")
        peer = self._replica.peers.get(member.id)
        if member.id != self._replica.id and (peer is None or not peer[4]):
            raise Refused(f"{member.name} does not answer, and cannot lead")
        if member.id != self._replica.id:
            await self.give_lead(self._replica.term, member.id)
            await self._replica.succeeded()

    async def _admit(self, member: Member) -> None:
        members = self._replica.members
        known = members.find(member.id)
        if known == member:
            return
        if known is not None:
            # It listens elsewhere now; nothing changes for Raft.
            kind = LEARNER if member.id in members.learners else VOTER
            await self._replica.change_members([(kind, member.id)], MemberChange((member,)))
            return
        if member.id in members.removed or void_key(members, member.key):
            raise Refused("this folder's server was removed: empty the folder, and join again")
        others = [other for other in members.named(member.name) if other.id != member.id]
        if any(other.id not in members.lost for other in others) or len(others) > 1:
            raise Refused(
                f"there is a server named {member.name} already: take another name, or, if its"
                f" folder is lost, run first: grampus cluster replace {member.name}"
            )
        if len(members.known) >= MOST:
            raise Refused(
                f"this cluster has {MOST} servers, and takes no more: remove one that is not needed"
                " first, with: grampus cluster remove NAME"
            )
        await self._replica.change_members([(LEARNER, member.id)], MemberChange((member,)))
        log.info("server %s joins as a learner", member.name)

    def _best_peer(self) -> int:
        """Who is to lead in place of this server. Refused when nobody answers."""
        heirs = self.heirs()
        if not heirs:
            raise Refused("no other voter answers, so nobody could lead instead: start one first")
        return heirs[0]

    def heirs(self) -> list[int]:
        """The other voters that answer: whose disk is well first, then who has most of the log."""
        peers, disks = self._replica.peers, self._replica.disks
        others = [id for id in self._replica.members.conf[0] if id != self._replica.id]
        heard = [id for id in others if id in peers and peers[id][4]]
        return sorted(heard, key=lambda id: (disks.get(id, 0), -peers[id][0]))

    @property
    def known(self) -> Known:
        """Which apply version each member knows, this server included."""
        ids = [member.id for member in self._replica.members.known]
        return {id: self._newest if id == self._me.id else self._peers.knows(id) for id in ids}

    def common_version(self) -> int:
        """The newest apply version that every member knows; 0 when one does not answer."""
        return common_version(self._replica.members, self.known)

    def _roll(self) -> Roll:
        replica, peers = self._replica, self._peers
        members = replica.members
        leader = members.find(replica.leader_id)
        complaints = {m.id: peers.complaint(m.id) for m in members.known if m.id != replica.id}
        progress = replica.peers if replica.leader else {}
        rows = lines(
            members,
            replica.leader_id,
            progress,
            replica.last_index,
            complaints,
            replica.id,
            self.known,
            self._load,
            replica.disks,
        )
        left = None if replica.leader_id else -1
        if replica.leader:
            left = spare(members, replica.id, progress)
        name = None if leader is None else leader.name
        version = self._apply_version()
        held = held_back(members, self.known, version)
        before = [m.name for m in members.known if m.id in members.conf[2]]
        todo = advice(rows, len(members.conf[0]), name, left, before)
        return Roll(
            cluster=self._cluster,
            history=self._history,
            server=self._me.name,
            leader=name,
            led=replica.led,
            term=replica.term,
            commit=replica.commit_index,
            applied=replica.applied_index,
            members=rows,
            can_lose=left,
            advice=(*todo, *advice_on_version(rows, version, held)),
            apply_version=version,
            held_back=held,
        )
