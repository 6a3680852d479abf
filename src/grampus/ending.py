"""Why a process of Grampus ended: one error for its user, out of all that failed together."""

from __future__ import annotations

from grampus.consensus.port import Stopped
from grampus.database.failure import ADVICE, storage_failed
from grampus.errors import GrampusError


def explained(group: BaseExceptionGroup[Exception]) -> Exception:
    """What a user should read of all that failed: the first reason."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, Stopped) and isinstance(error.__cause__, GrampusError):
        error = error.__cause__
    if isinstance(error, OSError) and error.errno in ADVICE:
        return storage_failed("use", error.filename or "a file of this node", error)
    assert isinstance(error, Exception)
    return error
