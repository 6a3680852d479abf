"""The Python client: what the HTTP API can do, as methods.

Rule: every failure is a `GrampusError` that says what to do. The client makes the id of a run, so
that a start whose answer got lost can be sent again. A run may be named by its id, a unique prefix
of it, or `last`. What is pickled is read only when the caller says so.
"""

from __future__ import annotations

import os
import pickle
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

import msgspec

from grampus import ids
from grampus.clock import SystemClock
from grampus.config import Config, load_config
from grampus.errors import (
    InvalidInput,
    NotFound,
    Problem,
    ProtocolError,
    Refused,
    ServerUnreachable,
    UsageError,
)
from grampus.model.run import FINAL_TASK
from grampus.sdk.answers import (
    Applied,
    ClusterInfo,
    Explanation,
    JoinToken,
    LedgerCheck,
    LogPiece,
    PlannedTick,
    Retried,
    Run,
    RunEvent,
    ScheduleInfo,
    Started,
    StoryLine,
    Submitted,
    TaskResult,
    TaskRun,
    Tick,
    TokenLine,
    Worker,
    WorkflowInfo,
)
from grampus.sdk.discovery import find
from grampus.sdk.follow import RECONNECT_MS, follow_events, follow_logs
from grampus.sdk.kv import Keys
from grampus.sdk.transport import Transport

if TYPE_CHECKING:
    from grampus.sdk.load import Loaded

T = TypeVar("T")
API = "/api/v1"
#: Seconds. A server that does not answer within this time is not there.
TIMEOUT = 5.0
PAGE = 100
STORY_PAGE = 500
#: Runs in one request.
BATCH = 500
SHORTEST_PREFIX = 4
_ID = re.compile(r"[a-z2-7]{1,12}\Z")


class Client:
    """Talks to a node or cluster; use it as a context manager, or `close` it.

    Without arguments it finds the node of this user, or what GRAMPUS_SERVER and GRAMPUS_TOKEN say.
    """

    def __init__(
        self,
        server: str | Sequence[str] | None = None,
        token: str | None = None,
        timeout: float = TIMEOUT,
        config: Config | None = None,
        stale: bool = False,
    ) -> None:
        """`server`: URLs to try in turn. `timeout`: seconds for a request to be answered. `stale`:
        reads show what the server that answers has, also when no majority is there."""
        if config is None:
            config = load_config({"server": server})
        addresses = find(
            config.state, config.server, token, config.token_file, ca=config.ca,
            cluster=config.cluster_servers,
        )  # fmt: skip
        self._transport = Transport(addresses, timeout, stale)
        self._clock = SystemClock()
        #: The metadata center.
        self.kv = Keys(self._transport)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._transport.close()

    def on_silence(self, call: Callable[[str], None]) -> None:
        """Streams go on by themselves when their server is gone. `call` gets what is wrong when
        nobody answers for longer than a change of leaders takes, "" when somebody does again."""
        self._transport.silent = call

    # Workflows

    def apply(self, what: object) -> list[Applied]:
        """Applies the workflows of a file (a path), or one workflow function.

        Everything is checked before anything is applied. Raises InvalidInput.
        """
        from grampus.sdk.load import load, load_workflow

        if isinstance(what, str | Path):
            return [self.apply_loaded(loaded) for loaded in load(Path(what))]
        return [self.apply_loaded(load_workflow(what))]

    def apply_loaded(self, loaded: Loaded) -> Applied:
        """Applies one workflow that was loaded already; its bundle goes first."""
        if loaded.bundle is not None:
            path = f"{API}/bundles/{ids.content_hash(loaded.bundle)}"
            if self._transport.ask("HEAD", path, absent=True).status_code == 404:
                headers = {"Content-Type": "application/octet-stream"}
                self._transport.ask("PUT", path, content=loaded.bundle, headers=headers)
        definition = msgspec.Raw(loaded.workflow.content())
        return self._do("POST", "/workflows", Applied, body={"definition": definition})

    def workflows(self) -> Iterator[WorkflowInfo]:
        """All of them, by name."""
        return self._pages("/workflows", WorkflowInfo, {}, None)

    def workflow(self, name: str, version: int | None = None) -> WorkflowInfo:
        """The newest version, or the one asked for. Raises NotFound."""
        return self._do("GET", f"/workflows/{_safe(name)}", WorkflowInfo, {"version": version})

    def pause_workflow(self, name: str) -> None:
        """New runs of it stay QUEUED."""
        self._transport.ask("POST", f"{API}/workflows/{_safe(name)}/pause")

    def resume_workflow(self, name: str) -> None:
        self._transport.ask("POST", f"{API}/workflows/{_safe(name)}/resume")

    def delete_workflow(self, name: str) -> None:
        """Raises Refused while runs of it are active."""
        self._transport.ask("DELETE", f"{API}/workflows/{_safe(name)}", repeat=False)

    # Runs

    def start(
        self,
        workflow: object,
        params: Mapping[str, Any] | None = None,
        *,
        key: str | None = None,
        wait: bool = False,
        version: int | None = None,
        priority: int = 0,
    ) -> Run:
        """Starts a workflow by name; a workflow function is applied first.

        The same `key` with the same request is the same run; with another request, Refused.
        With `wait`, returns when the run is final.
        """
        if not isinstance(workflow, str):
            (applied,) = self.apply(workflow)
            workflow, version = applied.name, applied.version
        run = self.submit(workflow, params, key=key, version=version, priority=priority).id
        return self.wait(run) if wait else self.run(run)

    def submit(
        self,
        workflow: str,
        params: Mapping[str, Any] | None = None,
        *,
        key: str | None = None,
        version: int | None = None,
        priority: int = 0,
    ) -> Started:
        """`start` without a look at the run."""
        body = {
            "workflow": workflow,
            "params": dict(params or {}),
            "priority": priority,
            "version": version,
        }
        if key is None:
            body["id"] = ids.run_id(os.urandom(8))
        body = {name: value for name, value in body.items() if value is not None}
        headers = {} if key is None else {"Idempotency-Key": _key(key)}
        return self._do("POST", "/runs", Started, body=body, headers=headers)

    def submit_many(self, runs: Sequence[Mapping[str, Any]]) -> list[Submitted]:
        """Starts many: each is `{"workflow": ..., "params": ..., "priority": ..., "version": ...}`.

        What becomes of each is in the answer, in their order; none raises for another. A run
        without `id` gets one here, so that sending again is safe."""
        asked = [{"id": ids.run_id(os.urandom(8)), **run} for run in runs]
        done: list[Submitted] = []
        for start in range(0, len(asked), BATCH):
            body = {"items": asked[start : start + BATCH]}
            done += self._do("POST", "/runs:batch", _Batch, body=body).items
        return done

    def wait(self, run: str, timeout: float | None = None) -> Run:
        """Returns when the run is final. Raises TimeoutError after `timeout` seconds.

        A server that goes away is waited for, for a minute.
        """
        begun = asked = self._clock.ticks()
        end = None if timeout is None else begun + round(timeout * 1000)
        view = self.run(run)
        while not view.final:
            now = self._clock.ticks()
            if end is not None and now >= end:
                raise TimeoutError(f"run {view.id} is still {view.state} after {timeout:g} s")
            # Asks often at first; the answer is never late by more than a tenth.
            pause = min(max((now - begun) / 10, 50), 1000)
            time.sleep((min(pause, end - now) if end is not None else pause) / 1000)
            try:
                view = self.run(view.id)
                asked = self._clock.ticks()
            except ServerUnreachable:
                if self._clock.ticks() - asked > RECONNECT_MS:
                    raise
        return view

    def run(self, run: str) -> Run:
        """Raises NotFound, or Refused when a prefix fits several."""
        return self._do("GET", f"/runs/{_named(run)}", Run)

    def runs(
        self, workflow: str | None = None, state: str | None = None, limit: int | None = None
    ) -> Iterator[Run]:
        """Newest first, at most `limit`."""
        return self._pages("/runs", Run, {"workflow": workflow, "state": state}, limit)

    def tasks(self, run: str) -> list[TaskRun]:
        """The tasks of a run in the order of their declaration, with their attempts."""
        return self._do("GET", f"/runs/{_named(run)}/tasks", _Tasks).items

    def cancel(self, run: str) -> Run:
        """Asks for it, and returns at once: CANCELLING, or CANCELLED."""
        answer = self._do("POST", f"/runs/{_named(run)}/cancel", _Named)
        return self.run(answer.id)

    def pause(self, run: str) -> Run:
        """It starts nothing more; what runs goes on."""
        answer = self._do("POST", f"/runs/{_named(run)}/pause", _Named)
        return self.run(answer.id)

    def resume(self, run: str) -> Run:
        answer = self._do("POST", f"/runs/{_named(run)}/resume", _Named)
        return self.run(answer.id)

    def retry(self, run: str, task: str | None = None) -> Retried:
        """A new round of what did not succeed; with `task`, of it and all downstream as well.

        Raises Refused for a run that is active or was cancelled."""
        run = self._id(run)
        return self._do("POST", f"/runs/{run}/retry", Retried, query={"from": task}, repeat=False)

    def declare_lost(self, run: str, task: str) -> str:
        """Gives up the task's live attempt; its worker must be silent. The task's new state."""
        path = f"/runs/{_named(run)}/tasks/{_safe(task)}/declare-lost"
        return self._do("POST", path, _State, repeat=False).state

    def story(self, run: str, task: str | None = None) -> Iterator[StoryLine]:
        """Everything that happened, in order; with `task`, to it and to the whole run."""
        return self._pages(
            f"/runs/{self._id(run)}/story", StoryLine, {"task": task}, None, size=STORY_PAGE
        )

    def explain(self, run: str, task: str | None = None) -> Explanation:
        """Why the run or the task waits, as the scheduler knows it now."""
        return self._do("GET", f"/runs/{_named(run)}/explain", Explanation, {"task": task})

    def delete(self, run: str) -> None:
        """Raises Refused unless the run is final."""
        self._transport.ask("DELETE", f"{API}/runs/{_named(run)}", repeat=False)

    def result(self, run: str, task: str, *, unpickle: bool = False) -> Any:
        """What a task returned; None when it returned nothing.

        A pickled result runs code of whoever made it: Refused unless `unpickle`.
        """
        found = self.result_info(run, task)
        if found.encoding == "none" or found.inline:
            return found.value
        if found.encoding == "pickle" and not unpickle:
            raise Refused(
                f"the result of {task} is pickled: reading it runs code of that workflow. "
                "result(..., unpickle=True) does so"
            )
        data = self.result_bytes(run, task)
        if found.encoding == "pickle":
            return pickle.loads(data)
        return msgspec.json.decode(data)

    def result_info(self, run: str, task: str) -> TaskResult:
        """The result with its encoding and size; `value` when it is small JSON."""
        return self._do("GET", f"/runs/{_named(run)}/tasks/{_safe(task)}/result", TaskResult)

    def result_bytes(self, run: str, task: str) -> bytes:
        """The encoded result, up to 256 MiB."""
        path = f"{API}/runs/{_named(run)}/tasks/{_safe(task)}/result"
        headers = {"Accept": "application/octet-stream"}
        return self._transport.ask("GET", path, headers=headers).content

    def logs(
        self,
        run: str,
        task: str | None = None,
        *,
        attempt: int | None = None,
        stream: str | None = None,
        offset: int = 0,
        follow: bool = False,
    ) -> Iterator[LogPiece]:
        """What attempts wrote, of all tasks or one; to the end of the run with `follow`.

        `offset`: bytes of each stream to leave out.
        """
        run = self._id(run)
        query = {
            "task": task,
            "attempt": attempt,
            "stream": stream,
            "offset": offset or None,
            "follow": "true" if follow else None,
        }

        def final() -> bool:
            if task is None:
                return self.run(run).final
            return any(t.name == task and t.state in FINAL_TASK for t in self.tasks(run))

        path = f"{API}/runs/{run}/logs"
        return follow_logs(self._transport, path, query, final if follow else None)

    def events(self, run: str, after: int = 0) -> Iterator[RunEvent]:
        """What happened and happens to a run, with revisions above `after`, to its end."""
        run = self._id(run)
        path = f"{API}/runs/{run}/events"
        return follow_events(self._transport, path, after, lambda: self.run(run).final)

    # Schedules

    def schedules(self) -> Iterator[ScheduleInfo]:
        """All of them, by name of their workflow."""
        return self._pages("/schedules", ScheduleInfo, {}, None)

    def schedule(self, name: str) -> ScheduleInfo:
        """Raises NotFound."""
        return self._do("GET", f"/schedules/{_safe(name)}", ScheduleInfo)

    def next_ticks(self, name: str, count: int = 5) -> list[PlannedTick]:
        """The next `count` ticks, at most 100; fewer when the schedule ends before."""
        path = f"/schedules/{_safe(name)}/next"
        return self._do("GET", path, _PlannedTicks, {"count": count}).items

    def ticks(self, name: str, limit: int | None = None) -> Iterator[Tick]:
        """What became of planned ticks, newest first."""
        return self._pages(f"/schedules/{_safe(name)}/ticks", Tick, {}, limit)

    def pause_schedule(self, name: str) -> None:
        """Its ticks pass without a run, and are recorded."""
        self._transport.ask("POST", f"{API}/schedules/{_safe(name)}/pause")

    def resume_schedule(self, name: str) -> None:
        self._transport.ask("POST", f"{API}/schedules/{_safe(name)}/resume")

    def trust_clock(self) -> str:
        """Says that the clock of the node is right; answers what was doubted until now, or ""."""
        return self._do("POST", "/schedules:trust-clock", _ClockTrusted).held

    # Workers

    def workers(self) -> list[Worker]:
        return self._do("GET", "/workers", _Workers).items

    def alarms(self) -> list[str]:
        """What needs a person, as the node says: it goes on, but not as it should."""
        answer = self._transport.ask("GET", "/readyz")
        return msgspec.json.decode(answer.content, type=_Readiness).alarms

    # --- the cluster

    def cluster(self) -> ClusterInfo:
        return self._do("GET", "/cluster", ClusterInfo)

    def change_member(self, name: str, action: str) -> ClusterInfo:
        """`remove`, `replace` or `transfer`; the cluster afterwards."""
        path = f"/cluster/members/{_safe(name)}/{_safe(action)}"
        return self._do("POST", path, ClusterInfo, repeat=False)

    def begin_check(self) -> LedgerCheck:
        """All servers begin to take a checksum of their ledgers, at the same entry."""
        return self._do("POST", "/cluster/checks", LedgerCheck, repeat=False)

    def ledger_check(self, index: int) -> LedgerCheck:
        """What has come out of it. Raises NotFound at a server that knows nothing of it."""
        return self._do("GET", f"/cluster/checks/{index}", LedgerCheck)

    def join_token(self, role: str = "server", name: str = "", life: int = 3_600_000) -> JoinToken:
        """A token with which one node may join; `life` in ms."""
        body = {"role": role, "name": name, "life": life}
        return self._do("POST", "/cluster/tokens", JoinToken, body=body, repeat=False)

    def join_tokens(self) -> list[TokenLine]:
        """The newest first, used and expired ones too."""
        return self._do("GET", "/cluster/tokens", _Tokens).items

    def revoke_token(self, id: str) -> None:
        """It counts no more; who has joined with it stays. Raises NotFound."""
        self._transport.ask("DELETE", f"{API}/cluster/tokens/{_safe(id)}", repeat=False)

    def remove_worker(self, name: str) -> None:
        """Takes its key back: it is sent away, and needs a join token again. Raises NotFound."""
        self._transport.ask("DELETE", f"{API}/workers/{_safe(name)}", repeat=False)

    def save_snapshot(self, file: Path) -> int:
        """Writes a copy of the ledger of the server that answers; its size in bytes."""
        return self._transport.download(API + "/cluster/snapshot", file)

    def drain_worker(self, name: str, draining: bool = True) -> Worker:
        """It gets no new attempts, or, with `draining=False`, does again. Raises NotFound."""
        verb = "drain" if draining else "undrain"
        return self._do("POST", f"/workers/{_safe(name)}/{verb}", Worker)

    def _id(self, run: str) -> str:
        """The full id: what `last` means must not change while a stream is open."""
        return run if ids.is_run_id(run) else self.run(run).id

    def _do(
        self,
        method: str,
        path: str,
        answer: type[T],
        query: Mapping[str, Any] | None = None,
        *,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        repeat: bool = True,
    ) -> T:
        got = self._transport.ask(
            method, API + path, query=query, body=body, headers=headers, repeat=repeat
        )
        try:
            return msgspec.json.decode(got.content, type=answer)
        except msgspec.DecodeError as error:
            where = f"{method} {API}{path}"
            raise ProtocolError(f"the answer to {where} is not understood: {error}") from error

    def _pages(
        self,
        path: str,
        item: type[T],
        query: dict[str, Any],
        limit: int | None,
        size: int = PAGE,
    ) -> Iterator[T]:
        cursor: str | None = None
        left = limit
        while left is None or left > 0:
            most = size if left is None else min(left, size)
            page = self._do("GET", path, _Page, {**query, "limit": most, "cursor": cursor})
            items = page.items if left is None else page.items[:left]
            for raw in items:
                yield _item(raw, item)
            left = None if left is None else left - len(items)
            cursor = page.next
            if cursor is None or not page.items:
                return


class _Named(msgspec.Struct):
    id: str


class _Batch(msgspec.Struct):
    items: list[Submitted]


class _State(msgspec.Struct):
    state: str


class _Tasks(msgspec.Struct):
    items: list[TaskRun]


class _PlannedTicks(msgspec.Struct):
    items: list[PlannedTick]


class _ClockTrusted(msgspec.Struct):
    held: str


class _Readiness(msgspec.Struct):
    alarms: list[str]


class _Tokens(msgspec.Struct):
    items: list[TokenLine]


class _Workers(msgspec.Struct):
    items: list[Worker]


class _Page(msgspec.Struct):
    items: list[msgspec.Raw]
    next: str | None = None


def _item(raw: msgspec.Raw, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.DecodeError as error:
        raise ProtocolError(f"an item of the answer is not understood: {error}") from error


def _named(run: str) -> str:
    """`run` as a segment of a path. Raises NotFound for what no run can be called."""
    if run != "last" and not _ID.match(run):
        raise NotFound(f"there is no run {run!r}: ids are 12 characters of a-z and 2-7, or `last`")
    if len(run) < SHORTEST_PREFIX:
        raise UsageError(f"{run!r} is too short: {SHORTEST_PREFIX} characters of an id at least")
    return run


def _key(key: str) -> str:
    """Raises InvalidInput for what cannot be in a header."""
    if (
        1 <= len(key) <= ids.KEY_LIMIT
        and key.isascii()
        and key.isprintable()
        and key == key.strip()
    ):
        return key
    allowed = f"1 to {ids.KEY_LIMIT} printable ASCII characters, no space at the ends"
    raise InvalidInput(
        [Problem("the key cannot be this", field="key", found=repr(key), allowed=allowed)]
    )


def _safe(part: str) -> str:
    """One segment of a path; "" becomes what cannot exist instead of another route."""
    return quote(part, safe="", errors="replace") if part not in ("", ".", "..") else "%20"
