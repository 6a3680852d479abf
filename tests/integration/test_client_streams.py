"""The client against servers that break: cut streams, restarts, too much to do, nonsense.

The server here is a few lines that answer what a test tells them to, and write down what was asked.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import pytest

from grampus.errors import (
    GrampusError,
    InvalidInput,
    NoQuorum,
    NotFound,
    OutcomeUnknown,
    Overloaded,
    ProtocolError,
    Refused,
    ServerUnreachable,
    Unauthorized,
)
from grampus.sdk import follow, transport
from grampus.sdk.client import Client

RUN = "abcdefgh2345"
TIME = "2026-11-21T03:52:49.123Z"
Answer = Callable[["Request"], None]


class Asked(NamedTuple):
    path: str
    body: bytes
    headers: dict[str, str]


class Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Script

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        asked = Asked(self.path, self.rfile.read(length), dict(self.headers))
        self.server.asked.append(asked)
        self.server.answer(self)

    do_POST = do_PUT = do_HEAD = do_DELETE = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass

    def json(self, status: int, value: object, **headers: str) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def stream(self, *pieces: bytes, end: bool = True) -> None:
        """A chunked body; without `end` the connection breaks off in the middle."""
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in pieces:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        if end:
            self.wfile.write(b"0\r\n\r\n")
        self.close_connection = not end


class Script(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int]) -> None:
        super().__init__(address, Request)
        self.asked: list[Asked] = []
        self.answer: Answer = lambda request: request.json(404, {})

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is no news here."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@pytest.fixture
def script() -> Iterator[Script]:
    with Script(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def client(script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setenv("GRAMPUS_STATE", str(tmp_path))
    monkeypatch.setattr(follow, "FIRST_PAUSE", 0.01)
    with Client(script.url, token="t0k", timeout=2) as client:
        yield client


def fact(revision: int, type: str = "task.ready", **fields: object) -> bytes:
    data = json.dumps({"type": type, "revision": revision, "at": TIME, "run": RUN, **fields})
    return f"id: {revision}\nevent: {type}\ndata: {data}\n\n".encode()


def run_view(state: str) -> dict[str, object]:
    return {"id": RUN, "workflow": "w", "version": 1, "state": state, "tick": TIME, "created": TIME}


def one_after_another(*answers: Answer) -> Answer:
    left = list(answers)
    return lambda request: (left.pop(0) if len(left) > 1 else left[0])(request)


def test_events_go_on_where_a_broken_stream_ended(script: Script, client: Client) -> None:
    script.answer = one_after_another(
        lambda r: r.stream(fact(3), fact(5), b"id: 7\nevent: x\nda", end=False),
        lambda r: r.stream(b": still here\n\n", end=False),
        lambda r: r.json(503, {"detail": "it starts"}),
        lambda r: r.stream(fact(5), fact(7), fact(9, "run.finished", state="SUCCEEDED")),
    )
    assert [e.revision for e in client.events(RUN)] == [3, 5, 7, 9]
    assert [r.headers["Last-Event-ID"] for r in script.asked] == ["0", "5", "5", "5"]
    assert {r.headers["Authorization"] for r in script.asked} == {"Bearer t0k"}


def test_a_stream_that_a_stopping_server_ended_goes_on(script: Script, client: Client) -> None:
    def answer(request: Request) -> None:
        if not request.path.endswith("/events"):
            # It ends between the two streams: what it did at last is still told.
            request.json(200, run_view("SUCCEEDED"))
        elif request.headers["Last-Event-ID"] == "0":
            request.stream(fact(3))
        else:
            request.stream(fact(4, "run.finished", state="SUCCEEDED"))

    script.answer = answer
    assert [e.revision for e in client.events(RUN)] == [3, 4]


def test_the_events_of_a_run_that_was_over_are_none_and_end(script: Script, client: Client) -> None:
    script.answer = lambda r: (
        r.stream() if r.path.endswith("/events") else r.json(200, run_view("FAILED"))
    )
    assert list(client.events(RUN, after=9)) == []
    assert len(script.asked) == 3


def test_a_run_that_is_deleted_meanwhile_is_not_found(script: Script, client: Client) -> None:
    script.answer = one_after_another(
        lambda r: r.stream(fact(3), end=False), lambda r: r.json(404, {"detail": "gone"})
    )
    events = client.events(RUN)
    assert next(events).revision == 3
    with pytest.raises(NotFound, match="gone"):
        next(events)


def test_a_stream_that_never_comes_back_is_given_up(
    script: Script, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "RECONNECT_MS", 200)
    script.answer = one_after_another(
        lambda r: r.stream(fact(3), end=False), lambda r: r.stream(end=False)
    )
    events = client.events(RUN)
    next(events)
    with pytest.raises(ServerUnreachable, match="again and again"):
        next(events)


def test_who_waits_is_told_that_nobody_answers_and_that_somebody_does_again(
    script: Script, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "SILENT_MS", 0)
    told: list[str] = []
    client.on_silence(told.append)
    refused = [lambda r: r.json(503, {"detail": "it starts"})] * 4
    script.answer = one_after_another(
        lambda r: r.stream(fact(3), end=False),
        *refused,
        lambda r: r.stream(fact(4, "run.finished")),
    )
    assert [each.revision for each in client.events(RUN)] == [3, 4]
    assert told == ["no server answers", ""]


def test_a_stream_that_ends_for_want_of_a_majority_goes_on_when_there_is_one(
    script: Script, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "SILENT_MS", 0)
    told: list[str] = []
    client.on_silence(told.append)
    nobody = {"type": "urn:grampus:problem:no-quorum", "detail": "no server leads"}
    refused = [lambda r: r.json(503, nobody)] * 4
    script.answer = one_after_another(
        lambda r: r.stream(fact(3)),
        *refused,
        lambda r: r.stream(fact(4, "run.finished")),
    )
    assert [each.revision for each in client.events(RUN)] == [3, 4]
    assert told == ["no majority of the servers answers", ""]


def test_an_event_that_makes_no_sense_breaks_the_protocol(script: Script, client: Client) -> None:
    script.answer = lambda r: r.stream(b"data: {\n\n")
    with pytest.raises(ProtocolError):
        list(client.events(RUN))


def piece(offset: int, text: str, **fields: object) -> bytes:
    entry = {"task": "a", "attempt": 1, "stream": "stdout", "offset": offset, "text": text}
    entry["next"] = offset + len(text.encode())
    return json.dumps(entry | fields).encode() + b"\n"


def test_logs_that_break_off_are_told_once(script: Script, client: Client) -> None:
    script.answer = one_after_another(
        lambda r: r.stream(piece(0, "one\n"), piece(4, "tw"), b'{"task', end=False),
        # The pieces are cut elsewhere now, in the middle of what was told.
        lambda r: r.stream(piece(0, "one\ntwo é\n"), piece(11, "x", stream="stderr")),
    )
    told = [(p.offset, p.text) for p in client.logs(RUN)]
    assert told == [(0, "one\n"), (4, "tw"), (6, "o é\n"), (11, "x")]


def test_followed_logs_end_only_with_the_run(script: Script, client: Client) -> None:
    states = iter(["RUNNING", "SUCCEEDED"])
    streams = iter(
        [
            [piece(0, "a")],
            [piece(0, "a"), piece(1, "b", note="")],
            [piece(0, "abc"), piece(0, "", note="gone"), piece(0, "", note="gone")],
        ]
    )

    def answer(request: Request) -> None:
        if "/logs" in request.path:
            assert "follow=true" in request.path
            request.stream(*next(streams))
        else:
            request.json(200, run_view(next(states)))

    script.answer = answer
    pieces = list(client.logs(RUN, follow=True))
    assert "".join(p.text for p in pieces) == "abc"
    assert [p.note for p in pieces if p.note] == ["gone"]


def test_line_separators_inside_a_text_end_no_line(script: Script, client: Client) -> None:
    script.answer = lambda r: r.stream(
        json.dumps({"task": "a", "attempt": 1, "next": 9, "text": "x\u2028y"}).encode("utf-8")[:20],
        json.dumps({"task": "a", "attempt": 1, "next": 9, "text": "x\u2028y"}).encode("utf-8")[20:],
    )
    assert [p.text for p in client.logs(RUN)] == ["x\u2028y"]


def test_a_start_whose_answer_got_lost_is_sent_again_with_the_same_id(
    script: Script, client: Client
) -> None:
    def lose(request: Request) -> None:
        request.close_connection = True

    script.answer = one_after_another(lose, lambda r: r.json(202, {"id": RUN, "created": False}))
    assert client.submit("w").id == RUN
    first, second = (json.loads(r.body) for r in script.asked)
    assert first == second
    assert len(first["id"]) == 12


def test_two_starts_have_two_ids_and_a_key_takes_their_place(
    script: Script, client: Client
) -> None:
    script.answer = lambda r: r.json(202, {"id": RUN, "created": True})
    client.submit("w")
    client.submit("w")
    client.submit("w", {"a": 1}, key="k-1", priority=3)
    bodies = [json.loads(r.body) for r in script.asked]
    assert bodies[0]["id"] != bodies[1]["id"]
    assert bodies[2] == {"workflow": "w", "params": {"a": 1}, "priority": 3}
    assert script.asked[2].headers["Idempotency-Key"] == "k-1"


def test_what_must_not_be_sent_twice_is_not(script: Script, client: Client) -> None:
    def lose(request: Request) -> None:
        request.close_connection = True

    script.answer = lose
    with pytest.raises(OutcomeUnknown, match="may have been done"):
        client.delete(RUN)
    assert len(script.asked) == 1


def test_who_has_no_majority_is_asked_last_and_only_when_all_are_alone_it_is_an_error(
    script: Script, client: Client
) -> None:
    """Also for what must not be sent twice: it did not happen."""
    nobody = {"type": "urn:grampus:problem:no-quorum", "detail": "its disk does not answer"}
    with Script(("127.0.0.1", 0)) as other:
        thread = threading.Thread(target=other.serve_forever, args=[0.01])
        thread.start()
        script.answer = lambda r: r.json(503, nobody)
        other.answer = lambda r: r.json(200, {})
        with Client([script.url, other.url], token="t0k", timeout=2) as both:
            both.delete(RUN)
            both.delete(RUN)
            assert (len(script.asked), len(other.asked)) == (1, 2)
            other.answer = lambda r: r.json(503, nobody)
            with pytest.raises(NoQuorum, match="its disk does not answer"):
                both.delete(RUN)
        assert (len(script.asked), len(other.asked)) == (2, 3)
        other.shutdown()
        thread.join()


def test_too_much_to_do_is_tried_again_after_a_while(
    script: Script, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(transport.time, "sleep", waits.append)
    script.answer = one_after_another(
        lambda r: r.json(429, {"detail": "busy"}, Retry_After="2"),
        lambda r: r.json(429, {"detail": "busy"}, Retry_After="Wed, 21 Oct 2026 07:28:00 GMT"),
        lambda r: r.json(503, {"detail": "not yet"}, Retry_After="99999"),
        lambda r: r.json(200, {"items": []}),
    )
    assert client.workers() == []
    assert waits == [2, 1, transport.LONGEST_RETRY_AFTER]


def test_too_much_to_do_for_too_long_is_an_error(
    script: Script, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "PATIENCE_MS", 200)
    script.answer = lambda r: r.json(429, {"detail": "busy"})
    with pytest.raises(Overloaded, match="busy"):
        client.workers()


def test_the_next_server_is_asked_when_one_stops_or_is_gone(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAMPUS_STATE", str(tmp_path))
    monkeypatch.setattr(transport.time, "sleep", lambda seconds: None)
    with Script(("127.0.0.1", 0)) as other:
        thread = threading.Thread(target=other.serve_forever, args=[0.01])
        thread.start()
        other.answer = lambda r: r.json(503, {"detail": "it stops"})
        script.answer = lambda r: r.json(200, {"items": []})
        with Client([other.url, script.url], timeout=2) as client:
            assert client.workers() == []
            assert client.workers() == []
        other.shutdown()
        thread.join()
        url = other.url
    assert (len(other.asked), len(script.asked)) == (1, 2)
    with Client([url, script.url], timeout=2) as client:
        assert client.workers() == []


@pytest.mark.parametrize(
    ("status", "document", "kind", "told"),
    [
        (401, {"detail": "no token"}, Unauthorized, "GRAMPUS_TOKEN"),
        (404, {"detail": "there is no run x"}, NotFound, "there is no run x"),
        (409, {"title": "Conflict"}, Refused, "Conflict"),
        (412, {"detail": "revision 7"}, Refused, "revision 7"),
        (421, {}, Refused, "421"),
        (422, {"detail": "bad", "problems": [{"message": "m", "line": 3}]}, InvalidInput, "3: m"),
        (400, {"detail": "bad"}, InvalidInput, "bad"),
        (500, {"detail": "a defect"}, GrampusError, "a defect"),
        (504, {"detail": "unknown outcome"}, OutcomeUnknown, "may have been done"),
        (301, {}, ProtocolError, "is that address a Grampus server"),
    ],
)
def test_each_problem_is_its_error(
    script: Script,
    client: Client,
    status: int,
    document: object,
    kind: type[GrampusError],
    told: str,
) -> None:
    script.answer = lambda r: r.json(status, document)
    with pytest.raises(kind, match=told):
        client.workers()


@pytest.mark.parametrize("body", [[], {}, {"items": 3}, {"items": [{"name": "x"}]}])
def test_an_answer_of_another_shape_breaks_the_protocol(
    script: Script, client: Client, body: object
) -> None:
    script.answer = lambda r: r.json(200, body)
    with pytest.raises(ProtocolError, match="GET /api/v1/workers"):
        client.workers()


def test_waiting_survives_a_server_that_is_away_for_a_moment(
    script: Script, client: Client
) -> None:
    def lose(request: Request) -> None:
        request.close_connection = True

    script.answer = one_after_another(
        lambda r: r.json(200, run_view("RUNNING")),
        lose,
        lose,
        lose,
        lambda r: r.json(200, run_view("CANCELLED")),
    )
    assert client.wait(RUN).state == "CANCELLED"


def test_waiting_ends_when_its_time_is_up(script: Script, client: Client) -> None:
    script.answer = lambda r: r.json(200, run_view("RUNNING"))
    begun = time.monotonic()
    with pytest.raises(TimeoutError, match=f"{RUN} is still RUNNING after 0.3 s"):
        client.wait(RUN, timeout=0.3)
    assert time.monotonic() - begun < 2


def test_pages_are_asked_for_until_there_is_enough(script: Script, client: Client) -> None:
    def answer(request: Request) -> None:
        first = "cursor" not in request.path
        request.json(200, {"items": [run_view("FAILED")] * 3, "next": "c 1" if first else None})

    script.answer = answer
    assert len(list(client.runs(state="FAILED"))) == 6
    assert len(list(client.runs(limit=2))) == 2
    assert [r.path for r in script.asked] == [
        "/api/v1/runs?state=FAILED&limit=100",
        "/api/v1/runs?state=FAILED&limit=100&cursor=c+1",
        "/api/v1/runs?limit=2",
    ]


def test_names_are_quoted_in_addresses(script: Script, client: Client) -> None:
    for name in ("a/../b", "..", "", "x?y#z", "é\n"):
        with pytest.raises(NotFound):
            client.workflow(name)
    assert [r.path.removeprefix("/api/v1/workflows/") for r in script.asked] == [
        "a%2F..%2Fb",
        "%20",
        "%20",
        "x%3Fy%23z",
        "%C3%A9%0A",
    ]
