"""Splits SQL text into statements, and marks the colons that are no parameters.

Rule: a `;` ends a statement unless it stands in a quote, a comment or a dollar quote (`$tag$ ...
$tag$`); for SQLite a statement is over when SQLite's own reader says so, which knows the body of
a trigger. Of other dialects' procedural blocks only dollar-quoted ones are known: put one without
into its own file.
"""

from __future__ import annotations

import re
import sqlite3

_PLAIN = re.compile(r"[^'\"`;/$:\-]+")
_QUOTES = {
    "'": re.compile(r"'(?:[^']|'')*(?:'|\Z)"),
    '"': re.compile(r'"(?:[^"]|"")*(?:"|\Z)'),
    "`": re.compile(r"`[^`]*(?:`|\Z)"),
}
_BACKSLASHED = re.compile(r"'(?:[^'\\]|''|\\.)*(?:'|\Z)", re.DOTALL)
_LINE_COMMENT = re.compile(r"--[^\n]*")
_BLOCK_MARK = re.compile(r"/\*|\*/")
_DOLLAR = re.compile(r"\$(?:[A-Za-z_][A-Za-z0-9_]*)?\$")


def split(text: str, dialect: str) -> list[str]:
    """The statements of `text`, without the `;` and comments, for `sqlalchemy.text`.

    Only a `:name` outside of quotes is a parameter. `dialect` is SQLAlchemy's name: sqlite,
    postgresql, mysql, ...
    """
    statements: list[str] = []
    parts: list[str] = []
    #: There is more than comments and spaces.
    content = False
    at = 0
    start = 0
    while at < len(text):
        stop, kind = _next(text, at, dialect)
        piece = text[at:stop]
        if kind == "end" and (
            dialect != "sqlite" or not content or sqlite3.complete_statement(text[start:stop])
        ):
            if content:
                statements.append("".join(parts).strip())
            parts, content, start = [], False, stop
        else:
            content = content or (kind != "comment" and bool(piece.strip()))
            if kind == "comment":
                piece = " "
            elif kind == "quoted":
                piece = piece.replace(":", "\\:")
            parts.append(piece)
        at = stop
    if content:
        statements.append("".join(parts).strip())
    return statements


def _next(text: str, at: int, dialect: str) -> tuple[int, str]:
    """Where the token at `at` stops, and what it is: plain, quoted, comment, end."""
    char = text[at]
    if char == ";":
        return at + 1, "end"
    if char in _QUOTES:
        backslash = char == "'" and (
            dialect in ("mysql", "mariadb") or text[max(0, at - 1) : at] in ("E", "e")
        )
        match = (_BACKSLASHED if backslash else _QUOTES[char]).match(text, at)
        assert match is not None
        return match.end(), "quoted"
    if match := _LINE_COMMENT.match(text, at):
        return match.end(), "comment"
    if text.startswith("/*", at):
        return _comment_end(text, at, nested=dialect == "postgresql"), "comment"
    if char == "$" and (match := _DOLLAR.match(text, at)) and dialect == "postgresql":
        stop = text.find(match[0], match.end())
        return (len(text) if stop < 0 else stop + len(match[0])), "quoted"
    if match := _PLAIN.match(text, at):
        return match.end(), "plain"
    return at + 1, "plain"


def _comment_end(text: str, at: int, nested: bool) -> int:
    depth = 0
    while match := _BLOCK_MARK.search(text, at):
        at = match.end()
        if match[0] == "/*":
            depth = depth + 1 if nested else 1
        else:
            depth -= 1
        if depth == 0:
            return at
    return len(text)
