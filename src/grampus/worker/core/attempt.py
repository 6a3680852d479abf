"""One attempt as the core sees it, and what the way it ended means."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from enum import Enum

from grampus.model.run import AttemptState
from grampus.protocol import Invocation
from grampus.worker.core.memory import Launched
from grampus.worker.orders import Ended


class Stage(Enum):
    """Where an attempt is on its way. It moves down this list and never up."""

    #: An earlier process launched it; the warden has not yet said what became of it.
    INHERITED = "inherited"
    #: No slots yet.
    WAITING = "waiting"
    #: It has its slots; the driver makes it ready.
    PREPARING = "preparing"
    #: The warden was told. From here on only the warden can say that it is over.
    LAUNCHED = "launched"
    RUNNING = "running"
    #: Over, its slots are free; the driver reads what it left behind.
    READING = "reading"


#: Stages that nothing is remembered of: a successor has never heard of such an attempt.
UNLAUNCHED = frozenset({Stage.WAITING, Stage.PREPARING})
#: Stages in which there may be processes.
WITH_WARDEN = frozenset({Stage.INHERITED, Stage.LAUNCHED, Stage.RUNNING})


@dataclass(slots=True)
class Attempt:
    #: What is remembered of it from its launch on.
    record: Launched
    #: None when an earlier process launched it.
    invocation: Invocation | None
    stage: Stage = Stage.WAITING
    #: Its start, once RUNNING: in wall ms, and in ms since boot, 0 when that is not known.
    started: int = 0
    ticks: int = 0
    #: RUNNING was reported.
    told: bool = False
    #: Why the warden was told to end it; None when it was not.
    stop: str | None = None
    #: The ledger has ended it already: nobody waits for its report.
    closed: bool = False
    #: How it ended, once the warden has said it.
    ended: Ended | None = None
    #: In ms; None: it is kept, or the warden has it.
    lease: int | None = None

    @property
    def name(self) -> str:
        """`<run>/<task>.<attempt>`"""
        return self.record.stem

    @property
    def n(self) -> int:
        return self.record.n


def outcome(ended: Ended, stop: str | None, stopping: bool) -> tuple[AttemptState, str]:
    """State and error text for an attempt that ended so.

    `stop` is why it was told to end, `stopping` that the whole worker shuts down.
    """
    match ended.cause:
        case "exit" if ended.exit == 0:
            return AttemptState.SUCCEEDED, ""
        case "exit":
            return AttemptState.FAILED, exit_text(ended.exit)
        case "timeout":
            return AttemptState.TIMED_OUT, "it ran longer than its timeout"
        case "end" if stop is not None:
            return AttemptState.CANCELLED, stop
        case "end" if stopping:
            # Nobody's fault and no loss: the task is ready again, and nothing is charged.
            return AttemptState.CANCELLED, "the worker was stopped"
        case "end":
            return AttemptState.LOST, "the warden ended it"
        case "fenced":
            return AttemptState.LOST, ended.error
        case "spawn":
            return AttemptState.FAILED, f"it could not be started: {ended.error}"
        case "unable":
            # Nobody's fault and no loss either: nothing of it has ever run.
            return AttemptState.CANCELLED, f"it could not be started here: {ended.error}"
        case "lost":
            why = f": {ended.error}" if ended.error else ""
            return AttemptState.LOST, f"the process that watched over it died{why}"


def exit_text(code: int | None) -> str:
    """`exit code 3`, `ended by SIGKILL`"""
    if code is None:
        return "no exit code"
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"ended by signal {-code}"
