"""The roll of a cluster: who is there, who leads, who is behind, and what a person should do. Pure.

It is read at 3 a.m.: what matters comes first, and every complaint ends with what to type.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct

from grampus.consensus.members import Members
from grampus.consensus.membership import Progress, can_lose
from grampus.consensus.strain import HANGS
from grampus.consensus.upgrade import Known


class Load(Struct, frozen=True):
    """What a member says of itself."""

    #: Percent of its machine, and free bytes, averaged over the last minute.
    cpu: int
    memory: int
    #: Blobs that its ledger names and its folder lacks.
    lacks: int = 0


class Line(Struct, frozen=True):
    """One member."""

    name: str
    id: str
    address: str
    #: `voter`, `learner` or `lost` (to be replaced).
    role: str
    #: `leads`, `follows`, `behind`, `silent`, `waits` (for a leader) or `unknown`.
    state: str
    #: Entries that it lacks; None where the leader does not know, and where no leader answers.
    behind: int | None
    #: Why it cannot be reached from the server that was asked, or "".
    complaint: str
    #: The newest apply version that it knows; 0 when it does not answer.
    apply_version: int = 0
    #: As `Load`; None while it does not say.
    cpu: int | None = None
    memory: int | None = None
    lacks: int = 0
    #: How its disk is, as `Strain.told` says it; 0 when all is well.
    disk: int = 0


class Roll(Struct, frozen=True):
    cluster: str
    history: str
    #: The server that answers.
    server: str
    #: Name of the leader; None when there is none.
    leader: str | None
    #: How long it has led, in ms, as far as the server that answers has seen it.
    led: int
    term: int
    commit: int
    applied: int
    members: tuple[Line, ...]
    #: Voters that may still be lost without losing the majority; -1: it is lost. None: not known.
    can_lose: int | None
    #: What to do, most urgent first.
    advice: tuple[str, ...]
    #: Of the ledger.
    apply_version: int = 0
    #: Names of the members that hold it back, while others know a newer one.
    held_back: tuple[str, ...] = ()


#: Entries behind which a member is called behind.
BEHIND = 1000


def lines(
    members: Members,
    leader: int,
    progress: Progress,
    last: int,
    complaints: dict[int, str],
    me: int = 0,
    known: Known | None = None,
    load: Callable[[str], Load | None] = lambda name: None,
    disks: Mapping[int, int] | None = None,
) -> tuple[Line, ...]:
    """In the order of their names, as server `me` sees it. `progress` is empty unless it leads."""
    rows = []
    disks = disks or {}
    for member in sorted(members.known, key=lambda m: (m.name, m.id)):
        # While the members change, who voted before does; who comes is not there yet.
        votes = members.conf[2] if members.joint else members.conf[0]
        role = "voter" if member.id in votes else "learner"
        role = "lost" if member.id in members.lost else role
        peer = progress.get(member.id)
        # A new leader does not know yet what a server has that it has not heard: that is no lack.
        unheard = peer is None or not (peer[0] or peer[4])
        behind = None if peer is None or unheard else max(0, last - peer[0])
        if member.id == leader:
            state, behind = "leads", 0
        elif peer is None and member.id == me:
            state = "follows" if leader else "waits"
        elif peer is None:
            state = "silent" if complaints.get(member.id) else "unknown"
        elif not peer[4]:
            state = "silent"
        else:
            state = "behind" if (behind or 0) > BEHIND else "follows"
        disk, knows = disks.get(member.id, 0), (known or {}).get(member.id, 0)
        complaint = complaint_of(disk) or complaints.get(member.id, "")
        # Of a name that is being replaced, it is the successor that speaks.
        said = None if role == "lost" else load(member.name)
        cpu, memory, lacks = (said.cpu, said.memory, said.lacks) if said else (None, None, 0)
        rows.append(
            Line(
                member.name, f"{member.id:x}", member.address, role, state, behind, complaint,
                knows, cpu, memory, lacks, disk,
            )
        )  # fmt: skip
    return tuple(rows)


def complaint_of(disk: int) -> str:
    """Of a disk, by what `Strain.told` says."""
    if not disk:
        return ""
    if disk >= 1000 * HANGS:
        return f"its disk has not answered for {disk // 1000} s"
    return f"its disk is slow: a write takes {disk / 1000:.1f} s"


def spare(members: Members, leader: int, progress: Progress) -> int:
    """See `can_lose`: on the leader."""
    return can_lose(members, {leader, *(id for id, peer in progress.items() if peer[4])})


def advice(
    rows: tuple[Line, ...],
    voters: int,
    leader: str | None,
    left: int | None,
    before: Sequence[str] = (),
) -> list[str]:
    """Sentences for a person. `before`: who voted before a change of members that is under way."""
    told = [
        f"{row.name}: {row.complaint}. Look at that disk, and at what the kernel says (dmesg): the"
        " server goes on by itself when its disk does."
        for row in rows
        if row.disk
    ]
    if leader is None:
        also = f", and {len(before) // 2 + 1} of {', '.join(before)}" if before else ""
        told.append(
            f"No server leads: writes are refused until {voters // 2 + 1} of {voters} voters{also}"
            " can reach each other. Start the others; if most of them are lost for good, stop this"
            " server and run: grampus cluster recover --data DIR"
        )
    for row in rows:
        if row.role == "lost":
            told.append(
                f"{row.name} is being replaced: start its successor in an empty folder with"
                f" --name {row.name} --join HOST:PORT --token-file FILE"
            )
        elif row.disk:
            continue
        elif row.state == "silent":
            why = f": {row.complaint}" if row.complaint else ""
            lost = f"; if its folder is lost: grampus cluster replace {row.name}" if leader else "."
            told.append(f"{row.name} does not answer at {row.address}{why}. Start it again{lost}")
        elif row.state == "behind":
            told.append(f"{row.name} is {row.behind:,} entries behind, and is catching up.")
        elif row.lacks:
            told.append(
                f"{row.name} lacks {row.lacks:,} bundles and results that runs name, and fetches"
                " them from the others."
            )
    waiting = [row.name for row in rows if row.role == "learner" and row.state == "follows"]
    if voters == 1 and waiting:
        told.append(
            f"{', '.join(waiting)} has everything, and votes once a third server has joined: two"
            " voters would survive no loss."
        )
    elif voters == 2:
        told.append("Two voters survive no loss. Let a third server join: grampus cluster token")
    elif voters == 1:
        told.append(
            "One voter survives no loss. Let two more servers join: grampus cluster token, then"
            " grampus server start --join HOST:PORT --token-file FILE"
        )
    elif left == 0 and leader is not None:
        told.append("One more silent voter, and no write is taken any more.")
    return told


def advice_on_version(
    rows: tuple[Line, ...], version: int, held_back: tuple[str, ...]
) -> list[str]:
    """Sentences for a person, while an upgrade is under way."""
    told = []
    best = max((row.apply_version for row in rows), default=0)
    stays = f"until then the cluster stays at apply version {version}"
    for row in rows:
        if row.name not in held_back or row.apply_version >= best or row.role == "lost":
            continue
        if row.apply_version:
            told.append(
                f"{row.name} runs an older Grampus (apply version {row.apply_version}, others know"
                f" {best}). Install the new one there and start it again; {stays}."
            )
        else:
            told.append(
                f"{row.name} has not said whether it knows apply version {best}. Start it with the"
                f" new Grampus; {stays}."
            )
    return told
