"""An answer that may be behind says so: `Grampus-Stale`, with for how long no leader was heard.

Rule: whoever reads without asking the others notes it here, before it answers; the gate writes the
header, whatever the answer is made of. An answer without the header is not behind.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from fastapi import Request

from grampus.api.ports import Ports

#: Milliseconds since the leader was heard: at least so many.
STALE = "Grampus-Stale"
#: Of a request's scope.
_NOTE = "grampus.stale"
#: Who leads is heard several times a second; after so many ms without, there may be no majority.
LATE = 1_500


def may_be_behind(request: Request, ports: Ports) -> None:
    """The answer was asked for as it is here."""
    request.scope[_NOTE] = ports.unheard()


def behind_if_unheard(request: Request, ports: Ports) -> None:
    """The answer is from the leader, or what this server knows, where none is heard."""
    if ports.unheard() >= LATE:
        may_be_behind(request, ports)


def header(scope: MutableMapping[str, Any]) -> tuple[tuple[bytes, bytes], ...]:
    """For the answer to the request of this scope."""
    noted = scope.get(_NOTE)
    return () if noted is None else ((STALE.lower().encode(), b"%d" % noted),)
