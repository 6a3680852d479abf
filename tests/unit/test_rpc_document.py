"""docs/protocol.md says what the code does: every message, every field, in order; every number."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest
from msgspec import NODEFAULT, Struct, structs

from grampus import protocol
from grampus.cluster import requests
from grampus.cluster.commands import Compare, Origin, TxnDone
from grampus.cluster.failures import KINDS
from grampus.cluster.values import KeyChange, KeysChanged, KeyValue
from grampus.model.run import ATTEMPT_RANK, BLOB_LIMIT, INLINE_LIMIT, Value
from grampus.protocol import Goodbye, Invocation, Message
from grampus.rpc.codec import Codec, OneWay
from grampus.rpc.connection import Limits
from grampus.rpc.frames import frame

DOCUMENT = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
#: What goes inside KeysAsk and KeysTold.
KEYS = (*get_args(requests.Request), *get_args(requests.Answer))
TOLD_ONCE = [*get_args(Message), *(kind for kind in KEYS if kind is not TxnDone)]
NAME = re.compile(r"`([a-z_]+)`(\??)")


def fields_of(kind: type[Struct]) -> list[tuple[str, bool]]:
    """Names in order, and whether they may be left out."""
    return [(f.name, f.default is not NODEFAULT) for f in structs.fields(kind)]


def fields_in(text: str, kind: type[Struct]) -> list[tuple[str, bool]]:
    known = {name for name, _ in fields_of(kind)}
    return [(name, mark == "?") for name, mark in NAME.findall(text) if name in known]


@pytest.mark.parametrize("kind", TOLD_ONCE, ids=lambda kind: kind.__name__)
def test_every_message_is_described_with_its_fields_in_order(kind: type[Struct]) -> None:
    tag = kind.__struct_config__.tag
    rows = [line for line in DOCUMENT.splitlines() if line.startswith(f"| `{tag}` |")]
    assert len(rows) == 1
    assert fields_in(rows[0].rsplit(" | ", 1)[1], kind) == fields_of(kind)


@pytest.mark.parametrize(
    "kind",
    [
        Invocation, Value, requests.View, requests.Seen, Origin, Compare, KeyValue, KeysChanged,
        KeyChange,
    ],
)  # fmt: skip
def test_the_structures_inside_messages_are_described_in_order(kind: type[Struct]) -> None:
    [text] = [p for p in DOCUMENT.split("\n\n") if p.startswith(f"**{kind.__name__.lower()}**")]
    assert fields_in(text.split(". Exactly")[0], kind) == fields_of(kind)


def test_no_message_is_described_that_does_not_exist() -> None:
    described = set(re.findall(r"^\| `([a-z-]+)` \|", DOCUMENT, re.MULTILINE))
    assert described == {kind.__struct_config__.tag for kind in (*get_args(Message), *KEYS)}


def test_the_bytes_of_the_example_are_the_bytes_on_the_wire() -> None:
    [block] = re.findall(r"```\n(00 00.*?)```", DOCUMENT, re.DOTALL)
    example = bytes.fromhex("".join(re.findall(r"\b[0-9a-f]{2}\b(?= |$)", _left(block), re.M)))
    assert example == frame(Codec[Message](Message).encode(OneWay(0, Goodbye("bye"))))


def _left(block: str) -> str:
    return "\n".join(line[:34].rstrip() for line in block.splitlines())


def test_the_numbers_are_those_of_the_code() -> None:
    limits = Limits()
    for said in (
        f"protocol version **{protocol.PROTOCOL_VERSION}**",
        f"at most {protocol.CONTROL_FRAME // 1024} KiB",
        f"at most {protocol.BULK_FRAME // 1024**2} MiB",
        f"a frame of at most {protocol.HELLO_FRAME} bytes, within {protocol.HELLO_TIMEOUT:g} s",
        f"frames are at most {protocol.KEYS_FRAME // 1024**2} MiB",
        f"at most {limits.requests} requests unanswered, works on at most {limits.work} of",
        f"more than {limits.buffer // 1024**2} MiB",
        f"at most {INLINE_LIMIT // 1024} KiB",
        f"at most {BLOB_LIMIT // 1024**2} MiB",
    ):
        assert said in " ".join(DOCUMENT.split()), said
    assert all(f"`{kind}`" in DOCUMENT for kind in KINDS)
    assert all(f"`{state}`" in DOCUMENT for state in ATTEMPT_RANK)
