"""What is the same for all simulations: a seed is played to its end or to what is wrong, and a
failing one is told with the one command that repeats it.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from grampus.testing.world import World


class Outcome(Struct):
    seed: int
    #: What is wrong, or "".
    error: str
    trace: list[str]
    #: How often what happened: facts, states of attempts, faults.
    seen: Counter[str]
    #: Virtual seconds.
    time: float


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Nothing is logged: what matters is in the trace."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(level)


def reason(failure: BaseException) -> str:
    """What is wrong, in one line, and where that was seen."""
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    where = traceback.extract_tb(failure.__traceback__)[-1]
    return f"{type(failure).__name__}: {failure} ({Path(where.filename).name}:{where.lineno})"


class Played(Protocol):
    """A simulation, made for one seed."""

    @property
    def world(self) -> World: ...

    @property
    def watch(self) -> Watching: ...

    def run(self) -> None:
        """To its end. Raises what is wrong."""
        ...


class Watching(Protocol):
    @property
    def seen(self) -> Counter[str]: ...


def play(make: Callable[[int, Path], Played], seed: int, place: Path | None = None) -> Outcome:
    """Plays one seed to its end or to what is wrong, with a folder that is removed after; `place`
    is where that is made."""
    with quietly(), tempfile.TemporaryDirectory(prefix="grampus-sim-", dir=place) as folder:
        played = make(seed, Path(folder))
        error = ""
        try:
            played.run()
        except Exception as failure:
            error = reason(failure)
        world = played.world
        return Outcome(seed, error, world.trace, played.watch.seen, world.time)


def tell(outcome: Outcome, module: str, lines: int = 80) -> str:
    """The end of its history, and the one command that repeats it."""
    shown = outcome.trace[-lines:]
    head = [f"... {len(outcome.trace) - lines} lines before"] if len(outcome.trace) > lines else []
    again = f"again: {Path(sys.executable).name} -m {module} --seed {outcome.seed}"
    return "\n".join([*head, *shown, f"seed {outcome.seed}: {outcome.error}", again])


def report(
    module: str,
    about: str | None,
    play: Callable[[int], Outcome],
    argv: list[str] | None = None,
) -> int:
    """The command of a simulation: plays seeds, and prints what is wrong."""
    parser = argparse.ArgumentParser(prog=module, description=about)
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--count", type=int, default=1, help="how many seeds from there on")
    options = parser.parse_args(argv)
    total: Counter[str] = Counter()
    failed = 0
    for seed in range(options.seed, options.seed + options.count):
        outcome = play(seed)
        total += outcome.seen
        if outcome.error:
            failed += 1
            print(tell(outcome, module, 10_000 if options.count == 1 else 60))
        elif options.count == 1:
            print("\n".join(outcome.trace))
    print(f"{options.count} seeds, {failed} failed:", dict(sorted(total.items())))
    return 1 if failed else 0
