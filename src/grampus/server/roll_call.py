"""Who else of a cluster answers, asked from the folder of a server that is stopped.

Rule: whoever answers at all counts, also one that has no majority: only a person can say that it
will not be there again, by stopping it. Nothing is asked but that, and all are asked at once.
"""

from __future__ import annotations

import asyncio
import ssl

from grampus.config import Listen
from grampus.consensus.folder import DataFolder
from grampus.consensus.members import Members
from grampus.errors import GrampusError
from grampus.model.member import Member
from grampus.protocol import CONTROL_FRAME, Message
from grampus.rpc.calls import ConnectionLost
from grampus.rpc.client import connect
from grampus.rpc.codec import Codec
from grampus.server.arrival import Deaf, Place, Plan, arrive

#: Seconds for an answer.
PATIENCE = 2.0
#: What only happens with a server at the other end.
_THERE = (ConnectionLost, ssl.SSLCertVerificationError)


async def who_answers(folder: DataFolder, me: Member, members: Members) -> list[Member]:
    """Of the members but `me`, whose folder it is. Raises what a start of it would raise."""
    place = await arrive(folder, Listen(me.host, me.port), me.name, Plan(), 0)
    others = sorted((m for m in members.known if m.id != me.id), key=lambda m: m.name)
    answers = await asyncio.gather(*(_answers(place, each) for each in others))
    return [each for each, there in zip(others, answers, strict=True) if there]


async def _answers(place: Place, member: Member) -> bool:
    said: list[Message] = []

    def hear(answer: Message) -> int:
        said.append(answer)
        return CONTROL_FRAME

    async with asyncio.TaskGroup() as tasks:
        try:
            connection, _ = await connect(
                member.host, member.node_port, Codec[Message](Message), Deaf(),
                place.hello("control"), hear, PATIENCE, tasks=tasks, tls=place.tls(),
            )  # fmt: skip
        except GrampusError as error:
            # Also who cannot speak to this one: a certificate has ended, or a clock is wrong.
            return bool(said) or isinstance(error.__cause__, _THERE)
        connection.close("this was all")
        await connection.wait_closed()
    return True
