"""What both sides must agree on before they speak: the version, and how long a message may be."""

from __future__ import annotations

#: Raised with every release that changes messages. Whoever is one ahead or one behind is let in:
#: the newer of the two says nothing that the older does not know.
PROTOCOL_VERSION = 1
#: Largest frame on a control connection and on a bulk connection, in bytes.
CONTROL_FRAME = 512 * 1024
BULK_FRAME = 8 * 1024 * 1024
#: On the lane for keys: a piece of a watch is a MiB and one revision more.
KEYS_FRAME = 2 * 1024 * 1024
#: A Hello is at most this long and comes within this time.
HELLO_FRAME = 1024
HELLO_TIMEOUT = 5.0


def not_spoken(version: int) -> str:
    """Why one who says Hello in that version is not let in; "" when he is."""
    if abs(version - PROTOCOL_VERSION) <= 1:
        return ""
    return (
        f"protocol {version} is not spoken here, {PROTOCOL_VERSION} is, and the one before and"
        " after: install a Grampus that is nearer to this one"
    )
