"""The lane for keys: the metadata center's requests, which are encoded by `cluster.requests`."""

from __future__ import annotations

from msgspec import Struct


class KeysAsk(Struct, frozen=True, array_like=True, tag="keys-ask"):
    """One request for the metadata center; answered by KeysTold."""

    #: `cluster.requests.Request`, encoded.
    body: bytes


class KeysTold(Struct, frozen=True, array_like=True, tag="keys-told"):
    #: `cluster.requests.Answer`, encoded.
    body: bytes
