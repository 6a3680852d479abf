"""Whom a certificate is for: cluster, role and name, as one URI in it.

Rule: who somebody is comes from a certificate that our own authority signed, never from what he
says of himself. What a role may do is for those who greet.
"""

from __future__ import annotations

import re

from msgspec import Struct

SERVER = "server"
WORKER = "worker"
#: Roles that have certificates. Users have tokens of the API instead.
ROLES = (SERVER, WORKER)
_URI = re.compile(
    r"grampus:(?P<cluster>[a-z0-9-]{1,64})/(?P<role>[a-z]{1,16})"
    r"/(?P<name>[A-Za-z0-9][A-Za-z0-9_.-]{0,62})\Z"
)


class Subject(Struct, frozen=True):
    """The bearer of a certificate."""

    cluster: str
    role: str
    name: str
    #: `key_hash` of its public key: the same through all renewals.
    key: str

    @property
    def uri(self) -> str:
        """As it stands among the alternative names of the certificate."""
        return f"grampus:{self.cluster}/{self.role}/{self.name}"

    def __str__(self) -> str:
        return f"{self.role} {self.name} of cluster {self.cluster}"


def read_subject(uri: str, key: str) -> Subject | None:
    """None when it is not such a URI, or names a role that does not exist."""
    match = _URI.match(uri)
    if match is None or match["role"] not in ROLES:
        return None
    return Subject(match["cluster"], match["role"], match["name"], key)
