"""What an attempt needs around its process: bundle and inputs before it, its result after it.

Everything that is at hand is done at once, in the same turn of the loop; the rest is awaited in
a task. What a server must give is asked for again and again, within a bound; then the attempt is
LOST. What this machine cannot do now (its disk is full) is tried again within the same bound; then
the attempt is given back, at nobody's expense, and until the machine is able again the worker is in
trouble, and gets no other.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from grampus.errors import GrampusError, InvalidInput, NotFound
from grampus.model.run import AttemptState
from grampus.protocol import Invocation
from grampus.tasks.launch import Place, Process, TaskFailure, TemplateError, prepare
from grampus.worker.blobs import Exchange
from grampus.worker.bundles import BadBundle, Bundles
from grampus.worker.core.events import PrepareFailed, ResultRead
from grampus.worker.orders import Ended
from grampus.worker.results import Results

log = logging.getLogger("grampus.worker")

#: Bundle and inputs of an attempt must be there after so many seconds.
FETCH_TIMEOUT = 120.0
#: Bytes that can be written where the disk is not full.
ROOM = 1 << 18
#: Between two tries, in seconds; the last one repeats.
WAITS = (0.2, 0.5, 1.0, 2.0, 5.0)


class Held(Struct):
    """What the driver holds for one attempt, from Prepare to Drop."""

    n: int
    #: None when an earlier process has launched it.
    invocation: Invocation | None
    #: `<run>/<task>.<attempt>`
    stem: str
    #: Its output file holds what a shell command wrote.
    shell: bool
    #: The bundle that it uses, unpacked, once it does.
    bundle: str | None = None
    process: Process | None = None
    #: Where the warden runs it.
    slot: int | None = None
    task: asyncio.Task[None] | None = None


class Chores:
    def __init__(
        self, place: Place, bundles: Bundles, exchange: Exchange, results: Results
    ) -> None:
        self._place = place
        self._bundles = bundles
        self._exchange = exchange
        self._results = results
        #: What this machine could not do, until it can, and for whom it is tried.
        self._trouble = ""
        self._troubled: set[int] = set()

    def trouble(self) -> str:
        """Why this machine prepares nothing, or ""."""
        if self._trouble and not self._troubled and self._has_room():
            self._trouble = ""
        return self._trouble

    def _has_room(self) -> bool:
        probe = Path(self._place.scratch) / ".room"
        try:
            with open(probe, "wb") as file:
                file.write(os.urandom(ROOM))
            probe.unlink()
        except OSError as error:
            self._trouble = str(error)
            with suppress(OSError):
                probe.unlink(missing_ok=True)
            return False
        return True

    def prepare_now(self, held: Held) -> bool | PrepareFailed:
        """True when it can be launched; False when something has to be fetched first."""
        work = held.invocation
        assert work is not None
        if work.bundle is not None and held.bundle is None:
            if self._bundles.ready(work.bundle) is None:
                return False
            held.bundle = work.bundle
        if not all(self._exchange.has(hash) for hash in _blobs(work)):
            return False
        try:
            return self._make(held)
        except OSError:
            return False

    async def prepare(self, held: Held) -> bool | PrepareFailed:
        """Fetches what is not there; True when it can be launched."""
        trouble = ""
        try:
            async with asyncio.timeout(FETCH_TIMEOUT):
                for wait in _waits():
                    try:
                        await self._gather(held)
                        return self._make(held)
                    except OSError as error:
                        if not trouble:
                            log.warning("%s cannot be prepared yet: %s", held.stem, error)
                        trouble = self._trouble = str(error)
                        self._troubled.add(held.n)
                        await asyncio.sleep(wait)
        except TimeoutError:
            if trouble:
                text = f"this machine could not prepare it: {trouble}"
                return PrepareFailed(held.n, AttemptState.CANCELLED, text)
        except BadBundle as error:
            return PrepareFailed(held.n, AttemptState.FAILED, str(error))
        except GrampusError as error:
            text = f"bundle or inputs could not be fetched: {error}"
            return PrepareFailed(held.n, AttemptState.LOST, text)
        finally:
            self._troubled.discard(held.n)
        text = f"it could not be prepared within {FETCH_TIMEOUT:g} s"
        return PrepareFailed(held.n, AttemptState.LOST, text)

    async def _gather(self, held: Held) -> None:
        """Has bundle and inputs on this machine."""
        work = held.invocation
        assert work is not None
        for hash in _blobs(work):
            await self._fetch(hash)
        if work.bundle is not None and held.bundle is None:
            if not self._bundles.has(work.bundle):
                await self._fetch(work.bundle)
            await self._bundles.unpack(work.bundle, Path(self._exchange.path(work.bundle)))
            held.bundle = work.bundle

    async def _fetch(self, hash: str) -> None:
        """Raises what cannot be mended by trying again."""
        for wait in _waits():
            try:
                await self._exchange.fetch(hash)
                return
            except (NotFound, InvalidInput):
                raise
            except GrampusError:
                await asyncio.sleep(wait)

    def _make(self, held: Held) -> bool | PrepareFailed:
        """Raises OSError."""
        folder = self._bundles.folder(held.bundle) if held.bundle is not None else None
        try:
            assert held.invocation is not None
            held.process = prepare(held.invocation, self._place, folder, self._exchange.path)
        except (TaskFailure, TemplateError) as error:
            return PrepareFailed(held.n, AttemptState.FAILED, str(error))
        if held.process.spec is not None:
            _insist_on_room(self._place.scratch)
        return True

    def inherit(self, held: Held, bundle: str | None) -> None:
        """An earlier process made it ready: what it uses stays until its end."""
        if bundle is not None and self._bundles.ready(bundle) is not None:
            held.bundle = bundle

    def read_now(self, held: Held, ended: Ended) -> ResultRead | None:
        """None when that would take long."""
        if not self._results.is_small(held.stem, ended):
            return None
        read = self._results.read(held.stem, ended, held.shell)
        return read if read.output is None or read.output.blob is None else None

    async def read(self, held: Held, ended: Ended) -> ResultRead:
        """Returns only when a server has the blob of a large result too."""
        read = await asyncio.to_thread(self._results.read, held.stem, ended, held.shell)
        if read.output is not None and read.output.blob is not None:
            for wait in _waits():
                try:
                    await self._exchange.offer(read.output.blob)
                    break
                except GrampusError:
                    await asyncio.sleep(wait)
        return read

    def drop(self, held: Held) -> None:
        """Releases the bundle."""
        if held.task is not None:
            held.task.cancel()
        if held.bundle is not None:
            self._bundles.release(held.bundle)
            held.bundle = None


def _insist_on_room(folder: str) -> None:
    """Raises OSError when the disk is full. The warden, which writes the spec, would find out too,
    but when it has said already that the attempt runs."""
    if not os.statvfs(folder).f_bavail:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), folder)


def _blobs(work: Invocation) -> list[str]:
    return [value.blob for value in work.inputs.values() if value.blob is not None]


def _waits() -> Iterator[float]:
    yield from WAITS
    while True:
        yield WAITS[-1]
