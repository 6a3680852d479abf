"""Numbers that others may tell: what a column of the ledger holds, and no more.

Rule: what comes from outside and may end up in a command is declared as one of these. msgpack has
larger numbers than SQLite; one of those in the log would stop every server, and stop it again at
each start. So the message is refused where it is read.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
#: A count of something, in bytes for example.
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
#: Wall milliseconds, up to the year 9999.
Time = Annotated[int, Meta(ge=0, le=253_402_300_799_999)]
