"""HTTP to the first server that answers, and every failure as a `GrampusError`.

Rule: a request has one deadline, shared by the addresses that are tried for it. What is safe to
repeat is repeated: at the next address when one does not answer, after `Retry-After` when a server
has too much to do, and both are bounded. The address that answered is tried first from then on.
The proxies of the environment are not used: a token must not pass through them.
"""

from __future__ import annotations

import os
import re
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import httpx
import msgspec

from grampus.clock import SystemClock
from grampus.errors import (
    Compacted,
    ConditionFailed,
    GrampusError,
    InvalidInput,
    Lagging,
    LockLost,
    NoQuorum,
    NotFound,
    NotLeader,
    OutcomeUnknown,
    Overloaded,
    Problem,
    ProtocolError,
    Refused,
    ServerUnreachable,
    SessionUnknown,
    TooLarge,
    Unauthorized,
    UsageError,
    VersionMismatch,
    WrongCluster,
    WrongHistory,
)
from grampus.sdk.discovery import Address

#: For all waits that a server with too much to do asks for, in one request.
PATIENCE_MS = 30_000
LONGEST_RETRY_AFTER = 10
UPLOAD_TIMEOUT = 60.0
#: Seconds without a byte of a download.
SILENCE = 60.0
#: Of all that is asked about the cluster, what may be stale.
SNAPSHOT = "/api/v1/cluster/snapshot"
#: The type of the problem that waiting does not mend.
NO_QUORUM = "urn:grampus:problem:no-quorum"
#: Headers: which cluster a request means, or answers; and that an answer may be behind.
CLUSTER, STALE = "Grampus-Cluster", "Grampus-Stale"


#: What to do when nobody knows.
LOOK = "look what is there before you ask for it again"


class _Current(msgspec.Struct):
    mod_revision: int


class _ProblemDocument(msgspec.Struct):
    type: str = ""
    title: str = ""
    detail: str = ""
    problems: list[Problem] | None = None
    #: Of `precondition-failed` and of `compacted`.
    current: _Current | None = None
    first: int = 0

    @property
    def kind(self) -> str:
        return self.type.rpartition(":")[2]


class Transport:
    """`timeout` is in seconds: for a request to be answered, by whichever address. `stale`: reads
    may show what one server has, as it is without a majority."""

    def __init__(self, addresses: Sequence[Address], timeout: float, stale: bool = False) -> None:
        self._addresses = list(addresses)
        self._stale = stale
        self._timeout = timeout
        self._clock = SystemClock()
        #: Told by streams: what is wrong when nobody answers for a while, "" when somebody does.
        self.silent: Callable[[str], None] = lambda why: None
        #: By the file of the authority that they trust.
        self._clients: dict[Path | None, httpx.Client] = {}
        #: Of the first server that answered: those of another cluster are refused from then on.
        self._cluster = ""
        #: For how long the server that answered last had not heard a leader, in ms; None when its
        #: answer cannot be behind.
        self.unheard: int | None = None
        #: Told when an answer may be behind, with `unheard`.
        self.behind: Callable[[int], None] = lambda unheard: None

    def close(self) -> None:
        for client in self._clients.values():
            client.close()

    def _client(self, address: Address) -> httpx.Client:
        """Trusts for this address what it may, and nothing more."""
        client = self._clients.get(address.ca)
        if client is None:
            client = self._clients[address.ca] = httpx.Client(
                verify=_trust(address), trust_env=False, follow_redirects=False
            )
        return client

    def another(self, each: float) -> Transport:
        """To the same addresses, for `each` of which it has so many seconds; close it too."""
        return self._like(self._addresses, each * len(self._addresses))

    def apart(self, each: float) -> list[Transport]:
        """One to each address, with so many seconds; close them too."""
        return [self._like([address], each) for address in self._addresses]

    def _like(self, addresses: Sequence[Address], timeout: float) -> Transport:
        """It means the same cluster."""
        made = Transport(addresses, timeout)
        made._cluster = self._cluster
        return made

    def elsewhere(self) -> None:
        """Another address is asked first from now on."""
        self._addresses.append(self._addresses.pop(0))

    @property
    def urls(self) -> list[str]:
        return [a.url for a in self._addresses]

    def ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        repeat: bool = True,
        absent: bool = False,
        patient: bool = True,
    ) -> httpx.Response:
        """The answer, when it is a success (404 too with `absent`). Raises GrampusError.

        `repeat` says that the server may safely get the request twice, `patient` that one with too
        much to do is asked again later.
        """
        sent = {"Accept": "application/json", **(headers or {})}
        if body is not None:
            content = msgspec.json.encode(body)
            sent["Content-Type"] = "application/json"
        until = self._clock.ticks() + PATIENCE_MS
        others = len(self._addresses) - 1
        while True:
            asked = self._asked(method, path, query)
            answer = self._send(method, path, asked, content, sent, repeat)
            if answer.is_success or (absent and answer.status_code == 404):
                return answer
            try:
                fail(answer)
            except (Lagging, NoQuorum, NotLeader, WrongCluster, WrongHistory):
                # Nothing happened; another server may be further, or in the history that was seen,
                # or of the cluster that is meant, or know who leads, or hear of a majority.
                if not others:
                    raise
                others -= 1
                self.elsewhere()
            except Overloaded as error:
                wait = min(max(error.retry_after, 0.1), LONGEST_RETRY_AFTER)
                if not patient or self._clock.ticks() + wait * 1000 > until:
                    raise
                if answer.status_code == 503:
                    # It stops, or is not ready: perhaps another one is.
                    self.elsewhere()
                time.sleep(wait)

    @contextmanager
    def stream(
        self,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        silence: float,
    ) -> Iterator[httpx.Response]:
        """A body as it comes; each address gets one try. `silence`: seconds without a byte.

        Raises GrampusError when nothing answers or the answer is no success; httpx.TransportError
        when the body breaks off.
        """
        deadline = self._clock.ticks() + round(self._timeout * 1000)
        tried: list[str] = []
        for number, address in enumerate(list(self._addresses)):
            left = self._share(deadline, len(self._addresses) - number)
            http = self._client(address)
            request = http.build_request(
                "GET",
                address.url + path,
                params=self._asked("GET", path, query),
                headers={**self._says(address), **(headers or {})},
                timeout=httpx.Timeout(left, read=silence),
            )
            try:
                answer = http.send(request, stream=True)
            except httpx.TransportError as error:
                tried.append(_why(address, error))
                continue
            try:
                self._prefer(address)
                self._note(answer)
                if not answer.is_success:
                    answer.read()
                    try:
                        fail(answer)
                    except (NoQuorum, WrongCluster):
                        # Who is cut off from the others is not asked first again.
                        self.elsewhere()
                        raise
                yield answer
            finally:
                answer.close()
            return
        raise unreachable(tried)

    def download(self, path: str, file: Path) -> int:
        """Writes a body to a file, whole or not at all, that its owner alone can read; its size in
        bytes. Raises GrampusError."""
        aside = file.with_name(file.name + ".part")
        try:
            with self.stream(path, silence=SILENCE) as answer, _secret(aside) as out:
                for piece in answer.iter_bytes(1 << 20):
                    out.write(piece)
                out.flush()
                os.fsync(out.fileno())
            aside.replace(file)
            return file.stat().st_size
        except httpx.TransportError as error:
            raise ServerUnreachable(f"the download broke off: {error}") from error
        except OSError as error:
            raise Refused(f"{file} cannot be written: {error.strerror or error}") from error
        finally:
            aside.unlink(missing_ok=True)

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any],
        content: bytes | None,
        headers: Mapping[str, str],
        repeat: bool,
    ) -> httpx.Response:
        deadline = self._clock.ticks() + round(self._timeout * 1000)
        tried: list[str] = []
        for number, address in enumerate(list(self._addresses)):
            left = self._share(deadline, len(self._addresses) - number)
            upload = content is not None and len(content) > 1 << 20
            timeout = httpx.Timeout(UPLOAD_TIMEOUT if upload else left, connect=left)
            http = self._client(address)
            for again in (repeat, False):
                try:
                    answer = http.request(
                        method,
                        address.url + path,
                        params=query,
                        content=content,
                        headers={**self._says(address), **headers},
                        timeout=timeout,
                    )
                except httpx.TransportError as error:
                    # A kept connection that the server had closed: a fresh one may do.
                    if again and isinstance(error, httpx.NetworkError | httpx.RemoteProtocolError):
                        if not isinstance(error, httpx.ConnectError):
                            continue
                    tried.append(_why(address, error))
                    if not repeat and not isinstance(
                        error, httpx.ConnectError | httpx.ConnectTimeout
                    ):
                        # The next request goes elsewhere first: this one may hang for long.
                        self._addresses.append(self._addresses.pop(number))
                        raise may_have_happened(tried) from error
                    break
                self._prefer(address)
                self._note(answer)
                return answer
        raise unreachable(tried)

    def _asked(self, method: str, path: str, query: Mapping[str, Any] | None) -> dict[str, Any]:
        """The parameters that have a value; and that a read may be stale, where one can say so."""
        asked = {key: value for key, value in (query or {}).items() if value is not None}
        if self._stale and method == "GET" and ("/cluster" not in path or path == SNAPSHOT):
            asked["stale"] = "true"
        return asked

    def _says(self, address: Address) -> dict[str, str]:
        said = {"Authorization": f"Bearer {address.token}"} if address.token else {}
        return {**said, CLUSTER: self._cluster} if self._cluster else said

    def _note(self, answer: httpx.Response) -> None:
        if not self._cluster:
            self._cluster = answer.headers.get(CLUSTER, "")
        unheard = answer.headers.get(STALE, "")
        self.unheard = int(unheard) if unheard.isascii() and unheard.isdigit() else None
        if self.unheard is not None:
            self.behind(self.unheard)

    def _share(self, deadline: int, addresses: int) -> float:
        return max((deadline - self._clock.ticks()) / 1000 / addresses, 0.05)

    def _prefer(self, address: Address) -> None:
        if self._addresses[0] != address:
            self._addresses.remove(address)
            self._addresses.insert(0, address)


def unreachable(tried: Sequence[str]) -> ServerUnreachable:
    nobody = re.compile(r"https?://(127\.|localhost|\[::1\]).*: connection refused")
    here = any(map(nobody.match, tried))
    hint = (
        "start one: grampus up, or grampus server start"
        if here
        else "look whether it runs there, and at --server"
    )
    return ServerUnreachable("\n  ".join(["no server answers", *tried]) + f"\n{hint}")


def may_have_happened(tried: Sequence[str]) -> OutcomeUnknown:
    told = "\n  ".join(["the request may have been done", *tried])
    return OutcomeUnknown(f"{told}\n{LOOK}")


def fail(answer: httpx.Response) -> NoReturn:
    """Raises what the problem document of `answer` says."""
    try:
        document = msgspec.json.decode(answer.content, type=_ProblemDocument)
    except msgspec.DecodeError:
        document = _ProblemDocument()
    status = answer.status_code
    text = document.detail or document.title or f"the server answered {status} without a reason"
    if error := _of_kind(document, text):
        raise error
    if document.kind == "wrong-history":
        history, _, revision = answer.headers.get("Grampus-Seen", "").rpartition(":")
        raise WrongHistory(text, history, int(revision) if revision.isdecimal() else 0)
    if status == 401:
        raise Unauthorized(
            f"{text}\nthe token is read from --token-file, GRAMPUS_TOKEN, or the file that a node "
            "of this user writes"
        )
    if status == 404:
        raise NotFound(text)
    if status in (400, 413, 415, 422):
        raise InvalidInput(document.problems or [Problem(text)])
    if document.type == NO_QUORUM:
        raise NoQuorum(text)
    if status in (429, 503):
        raise Overloaded(text, _retry_after(answer))
    if 400 <= status < 500:
        raise Refused(text)
    if status == 504:
        raise OutcomeUnknown(f"{text}\nthe request may have been done\n{LOOK}")
    if status >= 500:
        raise GrampusError(f"the server failed: {text}")
    raise ProtocolError(f"the server answered {status}: is that address a Grampus server?")


def _of_kind(document: _ProblemDocument, text: str) -> GrampusError | None:
    """The error that has a class of its own."""
    match document.kind:
        case "too-large":
            return TooLarge(text)
        case "precondition-failed":
            current = document.current
            return ConditionFailed(text, 0 if current is None else current.mod_revision)
        case "compacted":
            return Compacted(text, document.first)
        case "session-unknown":
            return SessionUnknown(text)
        case "lock-lost":
            return LockLost(text)
        case "lagging":
            return Lagging(text)
        case "not-leader":
            return NotLeader(text)
        case "wrong-cluster":
            return WrongCluster(text)
        case "version-mismatch":
            return VersionMismatch(text)
        case "no-quorum":
            return NoQuorum(text)
    return None


def _retry_after(answer: httpx.Response) -> int:
    text = answer.headers.get("Retry-After", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 1


def _trust(address: Address) -> ssl.SSLContext:
    """Raises UsageError when the file of its authority cannot be used."""
    if not address.url.startswith("https:"):
        # Reading the certificates of the system takes longer than most requests.
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        return ssl.create_default_context(cafile=address.ca)
    except OSError as error:
        raise UsageError(f"the authority in {address.ca} cannot be used: {error}") from error


def _secret(file: Path) -> BinaryIO:
    """A copy of a ledger holds whatever anybody has put into it."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    out = open(os.open(file, flags, 0o600), "wb")
    os.fchmod(out.fileno(), 0o600)
    return out


def _why(address: Address, error: httpx.TransportError) -> str:
    if isinstance(error, httpx.TimeoutException):
        return f"{address.url}: no answer in time"
    if isinstance(error, httpx.ConnectError):
        if "WRONG_VERSION_NUMBER" in str(error):
            return f"{address.url}: it does not speak TLS: write http://"
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            why = str(error).rpartition("failed: ")[2].partition(" (_ssl")[0]
            return (
                f"{address.url}: its certificate is not trusted ({why}): give the file tls/ca.pem"
                " of a server's data folder with --ca or GRAMPUS_CA"
            )
        reason = str(error).rpartition("] ")[2].lower() or "connection failed"
        return f"{address.url}: {reason}"
    hint = ": does it want https://?" if address.url.startswith("http:") else ""
    return f"{address.url}: the connection broke ({type(error).__name__}){hint}"
