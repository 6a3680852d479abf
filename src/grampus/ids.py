"""Identifiers: their types and their spelling. Nothing here makes randomness; entropy is an
argument."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import NewType

#: 12 random base32 characters in lower case, made by whoever submits the run.
RunId = NewType("RunId", str)
#: A number that the ledger gives to one incarnation of a worker (its warden).
SessionId = NewType("SessionId", int)

RUN_ID = re.compile(r"[a-z2-7]{12}\Z")
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}\Z")
KEY_LIMIT = 200


def run_id(entropy: bytes) -> RunId:
    """Spells at least 8 random bytes as a run id (60 bits are kept)."""
    return RunId(base64.b32encode(entropy[:8]).decode("ascii").lower()[:12])


def run_id_of_key(key: str) -> RunId:
    """The run id that belongs to an idempotency key: the same key is always the same run."""
    return run_id(hashlib.sha256(b"grampus-run-key\0" + key.encode()).digest())


def is_run_id(text: str) -> bool:
    return RUN_ID.match(text) is not None


def is_name(text: str) -> bool:
    """Whether `text` may name a workflow, a task or a param: an ASCII identifier of at most 64."""
    return NAME.match(text) is not None


def content_hash(data: bytes) -> str:
    """The name of a blob: its SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()
