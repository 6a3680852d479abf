"""How those in office ask the ledger for something while leaders change and disks are slow.

Rule: every command gets an answer. Where the ledger gave none, that is a refusal with a code of its
own (`UNANSWERED`), so that whoever asked reads anew what was in doubt and asks again. What may have
happened is settled first, by a read barrier: after it the ledger here has it, if it did happen.
What happens later still is refused by `apply`: each command is a compare-and-set, or its epoch is
over by then.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from grampus.consensus.port import Stopped
from grampus.errors import GrampusError, InvalidInput, NoQuorum, NotLeader, Overloaded
from grampus.runs.commands import Command, Refusal
from grampus.runs.proposer import Proposer

log = logging.getLogger("grampus.master")

#: Between two tries to settle what is in doubt, in seconds.
SETTLE_AGAIN = 0.2


class Deposed(GrampusError):
    """Another master has taken office: this one must stop."""


async def ask(proposer: Proposer, commands: Sequence[Command], pause: float) -> list[object]:
    """One answer or `Refusal` per command. `pause`, in seconds, passes before it says that nothing
    was taken. Raises Stopped when there is no log to ask any more."""
    try:
        return await proposer.propose(*commands)
    except (Stopped, InvalidInput):
        raise
    except (Overloaded, NotLeader, NoQuorum) as error:
        await asyncio.sleep(pause)
        code = "overloaded" if isinstance(error, Overloaded) else "no-quorum"
        refusal = Refusal(code, str(error))
    except GrampusError as error:
        # OutcomeUnknown, or a leader elsewhere has broken a rule: who knows what happened.
        log.warning("%d commands have no answer: %s", len(commands), error)
        await _settle(proposer)
        refusal = Refusal("unknown-outcome", str(error))
    return [refusal for _ in commands]


async def _settle(proposer: Proposer) -> None:
    """Until it is settled, or this office is over. Raises Stopped."""
    while True:
        try:
            await proposer.settle()
            return
        except Stopped:
            raise
        except GrampusError:
            await asyncio.sleep(SETTLE_AGAIN)
