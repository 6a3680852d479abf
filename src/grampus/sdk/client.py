"""The Python client: what the HTTP API can do, as methods.

Rule: every failure is a `GrampusError` that says what to do. The client makes the id of a run, so
that a start whose answer got lost can be sent again. A run may be named by its id, a unique prefix
of it, or `last`. What is pickled is read only when the caller says so.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import msgspec

from grampus import ids
from grampus.clock import SystemClock
from grampus.config import Config, load_config
from grampus.errors import (
    Refused,
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
from grampus.sdk.documents import API, Documents
from grampus.sdk.follow import follow_events, follow_logs
from grampus.sdk.kv import Keys
from grampus.sdk.naming import idempotency_key, run_segment, segment
from grampus.sdk.transport import SNAPSHOT, Transport
from grampus.sdk.waiting import wait_for_end

if TYPE_CHECKING:
    from grampus.sdk.load import Loaded

#: Seconds. A server that does not answer within this time is not there.
TIMEOUT = 5.0
STORY_PAGE = 500
#: Runs in one request.
BATCH = 500


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
        self._api = Documents(self._transport)
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

    @property
    def unheard(self) -> int | None:
        """None when the newest answer cannot be behind; else for how long, in ms, the server that
        gave it had not heard a leader: a read that was asked for with `stale`, and `cluster`
        where no server leads."""
        return self._transport.unheard

    def on_stale(self, call: Callable[[int], None]) -> None:
        """`call` gets that number whenever an answer may be behind."""
        self._transport.behind = call

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
        return self._api.post("/workflows", Applied, body={"definition": definition})

    def workflows(self) -> Iterator[WorkflowInfo]:
        """All of them, by name."""
        return self._api.pages("/workflows", WorkflowInfo)

    def workflow(self, name: str, version: int | None = None) -> WorkflowInfo:
        """The newest version, or the one asked for. Raises NotFound."""
        return self._api.get(f"/workflows/{segment(name)}", WorkflowInfo, {"version": version})

    def pause_workflow(self, name: str) -> None:
        """New runs of it stay QUEUED."""
        self._api.do("POST", f"/workflows/{segment(name)}/pause")

    def resume_workflow(self, name: str) -> None:
        self._api.do("POST", f"/workflows/{segment(name)}/resume")

    def delete_workflow(self, name: str) -> None:
        """Raises Refused while runs of it are active."""
        self._api.do("DELETE", f"/workflows/{segment(name)}", repeat=False)

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
        headers = {} if key is None else {"Idempotency-Key": idempotency_key(key)}
        return self._api.post("/runs", Started, body=body, headers=headers)

    def submit_many(self, runs: Sequence[Mapping[str, Any]]) -> list[Submitted]:
        """Starts many: each is `{"workflow": ..., "params": ..., "priority": ..., "version": ...}`.

        What becomes of each is in the answer, in their order; none raises for another. A run
        without `id` gets one here, so that sending again is safe."""
        asked = [{"id": ids.run_id(os.urandom(8)), **run} for run in runs]
        done: list[Submitted] = []
        for start in range(0, len(asked), BATCH):
            body = {"items": asked[start : start + BATCH]}
            done += self._api.post("/runs:batch", _Batch, body=body).items
        return done

    def wait(self, run: str, timeout: float | None = None) -> Run:
        """Returns when the run is final. Raises TimeoutError after `timeout` seconds.

        A server that goes away is waited for, for a minute.
        """
        return wait_for_end(self.run, run, timeout, SystemClock())

    def run(self, run: str) -> Run:
        """Raises NotFound, or Refused when a prefix fits several."""
        return self._api.get(f"/runs/{run_segment(run)}", Run)

    def runs(
        self, workflow: str | None = None, state: str | None = None, limit: int | None = None
    ) -> Iterator[Run]:
        """Newest first, at most `limit`."""
        return self._api.pages("/runs", Run, {"workflow": workflow, "state": state}, limit=limit)

    def tasks(self, run: str) -> list[TaskRun]:
        """The tasks of a run in the order of their declaration, with their attempts."""
        return self._api.items(f"/runs/{run_segment(run)}/tasks", TaskRun)

    def cancel(self, run: str) -> Run:
        """Asks for it, and returns at once: CANCELLING, or CANCELLED."""
        answer = self._api.post(f"/runs/{run_segment(run)}/cancel", _Named)
        return self.run(answer.id)

    def pause(self, run: str) -> Run:
        """It starts nothing more; what runs goes on."""
        answer = self._api.post(f"/runs/{run_segment(run)}/pause", _Named)
        return self.run(answer.id)

    def resume(self, run: str) -> Run:
        answer = self._api.post(f"/runs/{run_segment(run)}/resume", _Named)
        return self.run(answer.id)

    def retry(self, run: str, task: str | None = None) -> Retried:
        """A new round of what did not succeed; with `task`, of it and all downstream as well.

        Raises Refused for a run that is active or was cancelled."""
        run = self._id(run)
        return self._api.post(f"/runs/{run}/retry", Retried, query={"from": task}, repeat=False)

    def declare_lost(self, run: str, task: str) -> str:
        """Gives up the task's live attempt; its worker must be silent. The task's new state."""
        path = f"/runs/{run_segment(run)}/tasks/{segment(task)}/declare-lost"
        return self._api.post(path, _State, repeat=False).state

    def story(self, run: str, task: str | None = None) -> Iterator[StoryLine]:
        """Everything that happened, in order; with `task`, to it and to the whole run."""
        return self._api.pages(
            f"/runs/{self._id(run)}/story", StoryLine, {"task": task}, size=STORY_PAGE
        )

    def explain(self, run: str, task: str | None = None) -> Explanation:
        """Why the run or the task waits, as the scheduler knows it now."""
        return self._api.get(f"/runs/{run_segment(run)}/explain", Explanation, {"task": task})

    def delete(self, run: str) -> None:
        """Raises Refused unless the run is final."""
        self._api.do("DELETE", f"/runs/{run_segment(run)}", repeat=False)

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
        path = f"/runs/{run_segment(run)}/tasks/{segment(task)}/result"
        return self._api.get(path, TaskResult)

    def result_bytes(self, run: str, task: str) -> bytes:
        """The encoded result, up to 256 MiB."""
        path = f"{API}/runs/{run_segment(run)}/tasks/{segment(task)}/result"
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
        return self._api.pages("/schedules", ScheduleInfo)

    def schedule(self, name: str) -> ScheduleInfo:
        """Raises NotFound."""
        return self._api.get(f"/schedules/{segment(name)}", ScheduleInfo)

    def next_ticks(self, name: str, count: int = 5) -> list[PlannedTick]:
        """The next `count` ticks, at most 100; fewer when the schedule ends before."""
        path = f"/schedules/{segment(name)}/next"
        return self._api.items(path, PlannedTick, {"count": count})

    def ticks(self, name: str, limit: int | None = None) -> Iterator[Tick]:
        """What became of planned ticks, newest first."""
        return self._api.pages(f"/schedules/{segment(name)}/ticks", Tick, limit=limit)

    def pause_schedule(self, name: str) -> None:
        """Its ticks pass without a run, and are recorded."""
        self._api.do("POST", f"/schedules/{segment(name)}/pause")

    def resume_schedule(self, name: str) -> None:
        self._api.do("POST", f"/schedules/{segment(name)}/resume")

    def trust_clock(self) -> str:
        """Says that the clock of the node is right; answers what was doubted until now, or ""."""
        return self._api.post("/schedules:trust-clock", _ClockTrusted).held

    # Workers

    def workers(self) -> list[Worker]:
        return self._api.items("/workers", Worker)

    def alarms(self) -> list[str]:
        """What needs a person, as the node says: it goes on, but not as it should."""
        answer = self._transport.ask("GET", "/readyz")
        return msgspec.json.decode(answer.content, type=_Readiness).alarms

    # --- the cluster

    def cluster(self) -> ClusterInfo:
        return self._api.get("/cluster", ClusterInfo)

    def change_member(self, name: str, action: str) -> ClusterInfo:
        """`remove`, `replace` or `transfer`; the cluster afterwards."""
        path = f"/cluster/members/{segment(name)}/{segment(action)}"
        return self._api.post(path, ClusterInfo, repeat=False)

    def begin_check(self) -> LedgerCheck:
        """All servers begin to take a checksum of their ledgers, at the same entry."""
        return self._api.post("/cluster/checks", LedgerCheck, repeat=False)

    def ledger_check(self, index: int) -> LedgerCheck:
        """What has come out of it. Raises NotFound at a server that knows nothing of it."""
        return self._api.get(f"/cluster/checks/{index}", LedgerCheck)

    def join_token(self, role: str = "server", name: str = "", life: int = 3_600_000) -> JoinToken:
        """A token with which one node may join; `life` in ms."""
        body = {"role": role, "name": name, "life": life}
        return self._api.post("/cluster/tokens", JoinToken, body=body, repeat=False)

    def join_tokens(self) -> list[TokenLine]:
        """The newest first, used and expired ones too."""
        return self._api.items("/cluster/tokens", TokenLine)

    def revoke_token(self, id: str) -> None:
        """It counts no more; who has joined with it stays. Raises NotFound."""
        self._api.do("DELETE", f"/cluster/tokens/{segment(id)}", repeat=False)

    def remove_worker(self, name: str) -> None:
        """Takes its key back: it is sent away, and needs a join token again. Raises NotFound."""
        self._api.do("DELETE", f"/workers/{segment(name)}", repeat=False)

    def save_snapshot(self, file: Path) -> int:
        """Writes a copy of the state of the cluster, or, if it may be `stale`, of what the server
        that answers has; its size in bytes."""
        return self._transport.download(SNAPSHOT, file)

    def drain_worker(self, name: str, draining: bool = True) -> Worker:
        """It gets no new attempts, or, with `draining=False`, does again. Raises NotFound."""
        verb = "drain" if draining else "undrain"
        return self._api.post(f"/workers/{segment(name)}/{verb}", Worker)

    def _id(self, run: str) -> str:
        """The full id: what `last` means must not change while a stream is open."""
        return run if ids.is_run_id(run) else self.run(run).id


class _Named(msgspec.Struct):
    id: str


class _Batch(msgspec.Struct):
    items: list[Submitted]


class _State(msgspec.Struct):
    state: str


class _ClockTrusted(msgspec.Struct):
    held: str


class _Readiness(msgspec.Struct):
    alarms: list[str]
