"""An error is of one class, whatever it has to cross: HTTP, a connection of nodes, the command."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest
from starlette.requests import Request

from grampus import errors
from grampus.api import problems
from grampus.cluster.failures import error_of, failed
from grampus.consensus.port import Stopped
from grampus.errors import (
    NOT_ADMITTED,
    Compacted,
    ConditionFailed,
    GrampusError,
    InvalidInput,
    NotAdmitted,
    NotLeader,
    Overloaded,
    Problem,
    Refused,
    ServerUnreachable,
    UsageError,
    WrongHistory,
)
from grampus.rpc.failures import heard, told
from grampus.sdk.transport import fail

#: What only a process says of itself, as it ends.
OWN = {
    errors.FolderError, errors.FolderCopied, errors.Diverged, errors.Outdated,
    errors.ProtocolError, Stopped,
}  # fmt: skip
#: HTTP tells them with a key, or with an address.
WITH_MORE: dict[type[GrampusError], GrampusError] = {
    InvalidInput: InvalidInput([Problem("it is wrong", field="a.b")]),
    Overloaded: Overloaded("too much to do", 7),
    ConditionFailed: ConditionFailed("it is at revision 3", 3),
    Compacted: Compacted("it begins at 9", 9),
    NotLeader: NotLeader("ask the leader", "192.0.2.1:8471"),
    WrongHistory: WrongHistory("it goes on in h2", "h2", 2**32),
}


def all_errors(of: type[GrampusError] = GrampusError) -> Iterator[type[GrampusError]]:
    yield of
    for kind in of.__subclasses__():
        if kind.__module__ == errors.__name__:
            yield from all_errors(kind)


def more(error: GrampusError) -> dict[str, object]:
    """What it says besides its text."""
    names = ("first", "retry_after", "revision", "leader")
    return {name: getattr(error, name) for name in names if hasattr(error, name)}


TOLD = [kind for kind in all_errors() if kind not in OWN and kind is not GrampusError]


def one(kind: type[GrampusError]) -> GrampusError:
    return WITH_MORE.get(kind) or kind("so it is")


@pytest.mark.parametrize("kind", TOLD, ids=lambda kind: kind.__name__)
def test_over_the_lane_for_keys_it_stays_what_it_is(kind: type[GrampusError]) -> None:
    error = one(kind)
    out = error_of(failed(error))
    # The first answers no question there, the others are told as what they are kinds of.
    plainer = {ConditionFailed: Refused, NotAdmitted: Refused, UsageError: InvalidInput}
    assert type(out) is plainer.get(kind, kind)
    assert out.exit_code == error.exit_code
    assert more(out) == (more(error) if type(out) is kind else {})


@pytest.mark.parametrize("kind", TOLD, ids=lambda kind: kind.__name__)
def test_as_the_answer_to_a_request_it_keeps_whose_fault_it_is(kind: type[GrampusError]) -> None:
    error = one(kind)
    out = heard(told(error, 4096))
    assert (str(out), out.exit_code) == (str(error), error.exit_code)
    assert type(out) is kind or kind not in NOT_ADMITTED.values()


@pytest.mark.parametrize("kind", TOLD, ids=lambda kind: kind.__name__)
def test_over_http_it_stays_what_it_is(kind: type[GrampusError]) -> None:
    if kind is ConditionFailed:
        return  # Its problem has the key as it is: the routes make it.
    scope = {"type": "http", "method": "GET", "path": "/a", "headers": [], "query_string": b""}
    error = one(kind)
    answer = problems._grampus_error(Request(scope), error)
    with pytest.raises(GrampusError) as met:
        fail(
            httpx.Response(
                answer.status_code, headers=dict(answer.headers), content=bytes(answer.body)
            )
        )
    # Who does not reach the leader now may do so in a moment.
    plainer = {
        NotAdmitted: Refused, UsageError: InvalidInput, ServerUnreachable: Overloaded
    }  # fmt: skip
    assert type(met.value) is plainer.get(kind, kind)
    if kind in (Overloaded, Compacted, WrongHistory):
        assert more(met.value) == more(error)


def test_the_tree_that_is_drawn_is_the_tree() -> None:
    drawn = [re.sub("[│├└─]", " ", line).split() for line in (errors.__doc__ or "").splitlines()]
    codes = {words[0]: words[1] for words in drawn if len(words) > 1 and words[1].isdigit()}
    found = {kind.__name__: str(kind.exit_code) for kind in all_errors()}
    del found["GrampusError"], found["FolderCopied"]
    assert codes == found
