"""Whether the id, the name and the key that a server shows belong together. Pure.

Rules: an id is made with a folder, and so is the key of its certificate; none of them is ever
another's. A name may pass to a successor, but only by an id and a key of its own. So what was
removed stays outside under whatever it shows of itself, and a member cannot be spoken for by
another. Somebody unknown may be a newcomer, or a member that joined while this server was away:
what he may do is decided by what he asks for.
"""

from __future__ import annotations

from grampus.consensus.members import GIVEN_UP, REMOVED, Members
from grampus.model.member import Member
from grampus.protocol import Hello


def refusal(members: Members, hello: Hello, key: str) -> str:
    """Why a server is not let in; "" for a member, and for one that is not known.

    `key` is that of its certificate, "" without TLS."""
    if why := members.void(hello.id):
        return why
    return (
        void_key(members, key)
        or _of_another_id(members, hello, key)
        or _of_this_id(members, hello, key)
    )


def void_key(members: Members, key: str) -> str:
    """Why nobody may come in, or join, by that key; "" when somebody may."""
    if key and key in members.removed_keys:
        return REMOVED
    owner = _owner(members, key)
    return GIVEN_UP if owner is not None and owner.id in members.lost else ""


def _owner(members: Members, key: str) -> Member | None:
    return next((each for each in members.known if key and each.key == key), None)


def _of_another_id(members: Members, hello: Hello, key: str) -> str:
    owner = _owner(members, key)
    if owner is None or owner.id == hello.id:
        return ""
    return (
        f"the certificate is that of server {owner.name}, which has another id: each folder has a"
        " key of its own, so empty this one, tls and all, and let it join anew"
    )


def _of_this_id(members: Members, hello: Hello, key: str) -> str:
    known, told = members.find(hello.id), hello.listens
    if known is not None and known.name != hello.node:
        return (
            f"the id is that of server {known.name}, not of {hello.node}: no folder has two names"
        )
    if known is not None and key and known.key not in ("", key):
        return (
            f"server {known.name} is known by another key: restore tls/node-key.pem in its folder,"
            f" or replace it: grampus cluster replace {known.name}"
        )
    if (
        told is not None
        and told.id == hello.id
        and (told.name != hello.node or told.key not in ("", key))
    ):
        return "what it says of itself is not what it shows"
    return ""
