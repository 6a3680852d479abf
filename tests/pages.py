"""Pages of the documentation as tests read them: each command, and what it says comes out.

Rule: `…` stands for anything within its line; a line that has nothing else, for any lines.
"""

from __future__ import annotations

import re


def commands_of(page: str) -> list[tuple[str, str]]:
    """Each `$ command` of the page's console blocks, with what it says comes out."""
    found: list[tuple[str, str]] = []
    for block in re.findall(r"```console\n(.*?)```", page, re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, out = part.partition("\n")
            found.append((command, out))
    return found


def comes_out(wanted: str, out: str) -> bool:
    """Whether that is what the page shows. Columns are as wide as what is in them."""
    lines = [_pattern(line) for line in wanted.strip().splitlines()]
    said = [line + "\n" for line in out.strip().splitlines()]
    return re.fullmatch("".join(lines), "".join(said)) is not None


def _pattern(line: str) -> str:
    if line.strip() == "…":
        return r"(?:.*\n)*?"
    pattern = re.escape(line.rstrip()).replace("…", ".*")
    return re.sub(r"(\\ ){2,}", r" +", pattern) + r" *\n"
