"""What lets a new node in, once: `grampus-join.<authority>.<id>.<secret>`.

Rule: a token carries the hash of the authority that the new node may trust, or `plain` where there
is no TLS; so its secret is never told to anybody else. The ledger keeps a hash of the secret only.
"""

from __future__ import annotations

import base64
import hashlib
import re

from msgspec import Struct

from grampus.errors import UsageError

#: Random bytes that `make` takes.
ENTROPY = 40
#: How long a token holds when nothing else is said, and at most, in ms.
LIFE = 3_600_000
LONGEST_LIFE = 7 * 86_400_000
#: Instead of the hash of an authority.
PLAIN = "plain"
_TEXT = re.compile(r"grampus-join\.(plain|[0-9a-f]{64})\.([a-z2-7]{12})\.([a-z2-7]{52})\Z")


class JoinToken(Struct, frozen=True):
    """A token as whoever uses it has it."""

    #: `key_hash` of the authority's key, or PLAIN.
    authority: str
    id: str
    secret: str

    @property
    def text(self) -> str:
        return f"grampus-join.{self.authority}.{self.id}.{self.secret}"

    @property
    def encrypted(self) -> bool:
        """Whether it is for a cluster with TLS."""
        return self.authority != PLAIN

    def __repr__(self) -> str:
        return f"JoinToken(id={self.id!r})"


def make(authority: str, entropy: bytes) -> JoinToken:
    """A new token from `ENTROPY` random bytes."""
    if len(entropy) < ENTROPY:
        raise ValueError(f"a token takes {ENTROPY} random bytes, not {len(entropy)}")
    return JoinToken(authority, _spell(entropy[:8])[:12], _spell(entropy[8:ENTROPY]))


def parse(text: str) -> JoinToken:
    """Raises UsageError, which tells nothing of the text."""
    match = _TEXT.match(text.strip())
    if match is None:
        raise UsageError("this is no join token: it has the form grampus-join.AUTHORITY.ID.SECRET")
    return JoinToken(match[1], match[2], match[3])


def secret_hash(secret: str) -> str:
    """What is kept of a secret: of a token's, and of the credential that a worker shows.

    They are long and random, so that a plain hash tells nothing of them."""
    return hashlib.sha256(b"grampus-secret\0" + secret.encode()).hexdigest()


def new_secret(entropy: bytes) -> str:
    """A credential from 32 random bytes."""
    if len(entropy) < 32:
        raise ValueError(f"a credential takes 32 random bytes, not {len(entropy)}")
    return _spell(entropy[:32])


def _spell(data: bytes) -> str:
    return base64.b32encode(data).decode("ascii").lower().rstrip("=")
