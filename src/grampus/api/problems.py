"""Whatever goes wrong becomes an RFC 9457 problem document: one table of kinds, one way out.

Rule: every answer of 400 and above is `application/problem+json` with the type
`urn:grampus:problem:<kind>`. A handler raises a GrampusError, or HttpProblem where HTTP has more to
say; both end here. What nobody foresaw is a 500 that tells nothing of the inside; it is logged.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard, get_args
from urllib.parse import quote

import msgspec
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Scope

from grampus.api.schemas.problems import FieldProblem, ProblemDocument
from grampus.consensus.port import Stopped
from grampus.errors import (
    Compacted,
    GrampusError,
    InvalidInput,
    Lagging,
    LockLost,
    NoQuorum,
    NotAdmitted,
    NotFound,
    NotLeader,
    OutcomeUnknown,
    Outdated,
    Overloaded,
    Problem,
    Refused,
    ServerUnreachable,
    SessionUnknown,
    TooLarge,
    UsageError,
    WrongHistory,
    name_of,
)
from grampus.model.spelling import nearest
from grampus.runs.commands import Refusal

MEDIA = "application/problem+json"
URN = "urn:grampus:problem:"
#: Status and title of each kind.
KINDS: dict[str, tuple[int, str]] = {
    "malformed": (400, "The request cannot be read"),
    "unauthorized": (401, "A valid token is needed"),
    "not-found": (404, "There is no such thing"),
    "method-not-allowed": (405, "That method is not for this address"),
    "not-acceptable": (406, "It cannot be given in that form"),
    "request-timeout": (408, "The request came too slowly"),
    "wrong-history": (409, "The cluster goes on in another history"),
    "conflict": (409, "Its state, or a rule, forbids that"),
    "version-mismatch": (409, "Not every server knows that yet"),
    "session-unknown": (409, "The session is over"),
    "lock-lost": (409, "The lock is no longer held"),
    "missing-bundle": (409, "The bundle has to be stored first"),
    "ambiguous-id": (409, "Several runs have an id that begins so"),
    "compacted": (410, "That part of the history is forgotten"),
    "precondition-failed": (412, "It is not as the request asks for; nothing happened"),
    "too-large": (413, "That is too large"),
    "unsupported-media-type": (415, "The body is in a format that is not read here"),
    "misdirected": (421, "This server does not go by that name"),
    "wrong-cluster": (421, "This server is of another cluster"),
    "invalid-input": (422, "The input is not valid"),
    "overloaded": (429, "The server has too much to do"),
    "internal": (500, "That is a defect of the server"),
    "stopped": (503, "The server is about to stop; nothing happened"),
    "unreachable": (503, "The one who knows cannot be reached"),
    "not-leader": (503, "Another server decides; nothing happened"),
    "no-quorum": (503, "Too few servers are there to decide; nothing happened"),
    "lagging": (503, "This server is behind what was seen; ask another, or again"),
    "not-ready": (503, "The server takes no work yet"),
    "unknown-outcome": (504, "It may have happened, or not"),
}
_OF_STATUS = {400: "malformed", 404: "not-found", 405: "method-not-allowed", 413: "too-large"}
#: Inputs are told back up to this many characters.
_FOUND = 100


class HttpProblem(Exception):
    """Ends the request with a problem of `kind` (a key of KINDS); `more` fills further fields."""

    def __init__(
        self,
        kind: str,
        detail: str,
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        self.kind = kind
        self.headers = headers
        self.more = more
        super().__init__(detail)


def problem(
    kind: str,
    detail: str,
    instance: str,
    problems: Sequence[Problem] | None = None,
    headers: Mapping[str, str] | None = None,
    more: Mapping[str, Any] | None = None,
) -> Response:
    """The answer that says so."""
    document = _document(kind, detail, instance, problems, more)
    content = document.model_dump_json(exclude_none=True)
    return Response(content, status_code=document.status, media_type=MEDIA, headers=headers)


def _document(
    kind: str,
    detail: str,
    instance: str,
    problems: Sequence[Problem] | None,
    more: Mapping[str, Any] | None = None,
) -> ProblemDocument:
    status, title = KINDS[kind]
    return ProblemDocument(
        type=URN + kind,
        title=title,
        status=status,
        detail=detail,
        instance=instance,
        problems=None if problems is None else [_field_problem(p) for p in problems],
        **(more or {}),
    )


def document_of(error: GrampusError, instance: str) -> ProblemDocument:
    """For an answer that has room for several."""
    problems = error.problems if isinstance(error, InvalidInput) else None
    return _document(kind_of(error), str(error), instance, problems)


def address(scope: Scope) -> str:
    """The path that was asked for, as it was spelled: for `instance`."""
    raw: bytes | None = scope.get("raw_path")
    return quote(scope["path"]) if raw is None else raw.decode("latin-1").partition("?")[0]


def accepted(answers: list[object]) -> object:
    """The answer to the one command that was proposed. Raises when it is a refusal."""
    (answer,) = answers
    if isinstance(answer, Refusal):
        if answer.code == "not-found":
            raise NotFound(answer.reason)
        raise Refused(answer.reason)
    return answer


def unknown_name(name: str, allowed: Sequence[str], what: str, field: str | None = None) -> Problem:
    """There is no field or parameter `name`; perhaps one of `allowed` was meant."""
    message = f"there is no {what} `{name[:_FOUND]}`{nearest(name, allowed)}"
    return Problem(message, field=field or name[:_FOUND], allowed=", ".join(allowed))


def problems_of(
    error: ValidationError | RequestValidationError, model: type[BaseModel] | None = None
) -> InvalidInput:
    """What pydantic found, in our words. `model` is that of the body."""
    found = []
    for each in error.errors():
        place = ".".join(str(x) for x in each["loc"])
        if each["type"] == "extra_forbidden":
            *within, name = each["loc"]
            found.append(unknown_name(str(name), _fields(model, within), "field", place))
        elif each["type"] == "missing":
            found.append(Problem("it is required", field=place))
        else:
            found.append(Problem(each["msg"], field=place, found=repr(each["input"])[:_FOUND]))
    return InvalidInput(found)


def _fields(model: type[BaseModel] | None, within: Sequence[int | str]) -> list[str]:
    """The names, as requests spell them, of what is at the place `within` of a `model`."""
    for step in within:
        if model is None or isinstance(step, int):
            continue
        kinds = {f.alias or name: f.annotation for name, f in model.model_fields.items()}
        model = next((m for m in (kinds.get(step), *get_args(kinds.get(step))) if _is(m)), None)
    return [] if model is None else [f.alias or name for name, f in model.model_fields.items()]


def _is(kind: Any) -> TypeGuard[type[BaseModel]]:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


_PLACE = re.compile(r"(?s)(.*) - at `\$?\.?(.*)`\Z")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`\Z")


def problem_of_convert(error: msgspec.ValidationError, fields: Sequence[str]) -> Problem:
    """What msgspec found first, with its place. `fields` are all names there are anywhere."""
    match = _PLACE.match(str(error))
    message, place = (match[1], match[2]) if match else (str(error), "")
    if unknown := _UNKNOWN.match(message):
        field = f"{place}.{unknown[1]}" if place else unknown[1]
        message = f"there is no field `{unknown[1][:_FOUND]}` here{nearest(unknown[1], fields)}"
        return Problem(message, field=field[: 2 * _FOUND])
    return Problem(message[:1].lower() + message[1:], field=place or None)


def install(app: FastAPI) -> None:
    """From now on `app` answers every error with a problem document."""
    app.add_exception_handler(HttpProblem, _http_problem)
    app.add_exception_handler(GrampusError, _grampus_error)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(Exception, _defect)


def kind_of(error: GrampusError) -> str:
    """Whose fault an error is decides how it is told."""
    match error:
        case TooLarge():
            return "too-large"
        case UsageError():
            return "invalid-input"
        case NotFound():
            return "not-found"
        case Overloaded():
            return "overloaded"
        case SessionUnknown():
            return "session-unknown"
        case LockLost():
            return "lock-lost"
        case Compacted():
            return "compacted"
        case Lagging():
            return "lagging"
        case NotAdmitted():
            return name_of(error) or "conflict"
        case Outdated():
            return "version-mismatch"
        case NotLeader():
            return "not-leader"
        case Refused():
            return "conflict"
        case OutcomeUnknown():
            return "unknown-outcome"
        case Stopped():
            return "stopped"
        case NoQuorum():
            return "no-quorum"
        case ServerUnreachable():
            return "unreachable"
        case _:
            return "internal"


def _field_problem(p: Problem) -> FieldProblem:
    return FieldProblem(
        message=p.message, file=p.file, line=p.line, field=p.field, found=p.found, allowed=p.allowed
    )


def _http_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HttpProblem)
    where = address(request.scope)
    return problem(error.kind, str(error), where, headers=error.headers, more=error.more)


def _grampus_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, GrampusError)
    problems = error.problems if isinstance(error, InvalidInput) else None
    headers = more = None
    if isinstance(error, Overloaded):
        headers = {"Retry-After": str(error.retry_after)}
    elif isinstance(error, Compacted):
        more = {"first": error.first}
    elif isinstance(error, WrongHistory):
        headers = {"Grampus-Seen": f"{error.history}:{error.revision}"}
    return problem(kind_of(error), str(error), address(request.scope), problems, headers, more)


def _invalid_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return _grampus_error(request, problems_of(error))


def _http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    kind = _OF_STATUS.get(error.status_code, "malformed")
    detail = {
        "not-found": f"there is nothing at {address(request.scope)}",
        "method-not-allowed": f"{request.method} is not allowed at {address(request.scope)}",
    }.get(kind, str(error.detail))
    headers = dict(error.headers or {})
    if kind == "method-not-allowed":
        headers["Allow"] = ", ".join(_methods(request))
    return problem(kind, detail, address(request.scope), headers=headers)


def _methods(request: Request) -> list[str]:
    """Those that are allowed at this address."""
    found: set[str] = set()
    for method in ("DELETE", "GET", "HEAD", "POST", "PUT"):
        scope = {**request.scope, "method": method}
        if any(route.matches(scope)[0] is Match.FULL for route in request.app.routes):
            found.add(method)
    if "GET" in found:
        found.add("HEAD")  # See `heads`.
    return sorted(found)


def _defect(request: Request, error: Exception) -> Response:
    detail = "the server met an error that it did not expect; its log has the details"
    return problem("internal", detail, address(request.scope))


#: What any proposal may end with.
WRITES = ("stopped", "unknown-outcome", "version-mismatch")


def responses(*kinds: str) -> dict[int | str, dict[str, Any]]:
    """For OpenAPI: the problems that a route may answer with, besides those that any may."""
    every = (
        "unauthorized", "method-not-allowed", "misdirected", "wrong-cluster", "overloaded",
        "no-quorum", "internal",
    )  # fmt: skip
    told: dict[int | str, dict[str, Any]] = {}
    for kind in dict.fromkeys((*kinds, *every)):
        status, title = KINDS[kind]
        before = told.get(status)
        text = f"{before['description']}; or `{kind}`: {title}" if before else f"`{kind}`: {title}"
        schema = {"$ref": "#/components/schemas/ProblemDocument"}
        told[status] = {"description": text, "content": {MEDIA: {"schema": schema}}}
    return dict(sorted(told.items(), key=lambda item: int(item[0])))
