"""Cluster events are keys: `/events/TOPIC/TIME-CHANCE`, so that they come in order, resume, and
survive a server like anything that is watched.

To all is a topic that all watch, to one is the topic `to/ID`. Events go after a day (`retention`);
what must not be missed is a state in a key of its own, and never only an event.
"""

from __future__ import annotations

from grampus.errors import InvalidInput, Problem

PREFIX = b"/events/"


def topic_prefix(topic: str) -> bytes:
    """What to watch. Raises InvalidInput."""
    if not topic or not all(topic.split("/")):
        message = "a topic is one or more names with `/` between them"
        raise InvalidInput([Problem(message, field="topic", found=repr(topic[:60]))])
    return PREFIX + topic.encode() + b"/"


def event_key(topic: str, at: int, chance: bytes) -> bytes:
    """`at` in wall ms; `chance` keeps events of one moment apart."""
    return topic_prefix(topic) + b"%013d-%s" % (at, chance.hex().encode())


def time_of(key: bytes) -> int | None:
    """When the event was made; None for a key that is no event's."""
    at, dash, _ = key.rpartition(b"/")[2].partition(b"-")
    return int(at) if dash and len(at) == 13 and at.isdigit() else None
