"""Where a value lands in a shell command, and how it is quoted there, so that it stays one value.

`ShellText` reads the fixed text of a command piece by piece and knows, at each insertion, in which
of the shell's contexts it stands. Rule: what cannot be quoted safely is refused, never guessed. It
is a reader of quotes, not of the grammar; what a command does with its words is the author's.
"""

from __future__ import annotations

import re
import shlex
from typing import Literal

Context = Literal["word", "double", "single", "number"]

ADVICE = 'give it to the task as `env:` and write "$NAME", or add `| raw` if it is trusted'

_HEREDOC = re.compile(r"<<(-?)[ \t]*(?:'([^'\n]*)'|\"([^\"\n]*)\"|\\?([^\s;&|<>()'\"\\]+))")
_DOUBLE = re.compile(r'([\\$`"])')
_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?\Z")
_WORD = re.compile(r"[A-Za-z0-9_]+")


class UnquotableError(ValueError):
    """A value stands where no quoting keeps it one value."""


def quote(text: str, context: Context) -> str:
    """`text` as it must be written in `context`. Raises UnquotableError for NUL or a non-number."""
    if "\0" in text:
        raise UnquotableError("a value with a NUL character cannot be part of a command")
    match context:
        case "word":
            return shlex.quote(text)
        case "double":
            return _DOUBLE.sub(r"\\\1", text)
        case "single":
            return text.replace("'", "'\"'\"'")
        case "number":
            if not _NUMBER.match(text):
                raise UnquotableError(f"inside $((…)) only a number may stand, not {text[:40]!r}")
            return text


class ShellText:
    """The quoting state of a command that has been read so far. Two equal `state`s quote alike."""

    def __init__(self) -> None:
        #: Innermost last: `word` `(` `$(` `((` `${` `"` `"${` `'` `` ` ``.
        self._stack: list[str] = ["word"]
        #: Here-documents whose bodies start on the next line: (delimiter, tabs are stripped).
        self._heredocs: list[tuple[str, bool]] = []
        self._comment = False
        self._body = False
        #: Why nothing can be quoted from here on.
        self._lost = ""
        #: The characters just before the next one matter: `$`, a backslash, a word's start.
        self._last = "\n"
        self._before_escape = "\n"
        self._line = ""

    @property
    def state(self) -> tuple[object, ...]:
        """Everything that later insertions depend on, but the last character (see `join`)."""
        stack, heredocs = tuple(self._stack), tuple(self._heredocs)
        return (stack, heredocs, self._comment, self._body, self._lost, self._line)

    def join(self, other: ShellText) -> None:
        """Two branches meet here. Raises UnquotableError when they end in different quotes."""
        lasts = {self._last, other._last}
        if self.state != other.state or (len(lasts) > 1 and lasts & {"\\", "$"}):
            raise UnquotableError(
                "a quote, bracket or `$` that opens inside {% if %} or {% for %} must close there"
            )
        if len(lasts) > 1:
            self._last = "?"

    def copy(self) -> ShellText:
        new = ShellText()
        new._stack, new._heredocs = list(self._stack), list(self._heredocs)
        new._comment, new._body, new._lost = self._comment, self._body, self._lost
        new._last, new._line, new._before_escape = self._last, self._line, self._before_escape
        return new

    def insert(self) -> Context:
        """The context of a value inserted here. Raises UnquotableError where there is none."""
        reason = self._refusal()
        if reason:
            raise UnquotableError(f"{reason}: {ADVICE}")
        self._last = "x"
        return {"'": "single", '"': "double", "((": "number"}.get(self._stack[-1], "word")  # type: ignore[return-value]

    def insert_raw(self) -> None:
        """Text that the author vouches for; taken to leave the quoting as it is."""
        self._last = "x"
        self._line += "x" if self._body else ""

    def _refusal(self) -> str:
        if self._lost:
            return self._lost
        if self._body or self._heredocs:
            return "a value cannot be quoted in a here-document"
        if self._comment:
            return "a value in a comment could end it with a line break"
        if "`" in self._stack:
            return "a value cannot be quoted inside backticks: write $(…)"
        if '"${' in self._stack:
            return 'a value cannot be quoted inside "${…}"'
        if self._last in ("\\", "$") and self._stack[-1] != "'":
            return f"a value cannot be quoted right after {self._last!r}"
        return ""

    def feed(self, text: str) -> None:
        """Reads fixed text."""
        at = 0
        while at < len(text):
            if self._body:
                at = self._read_heredoc(text, at)
            elif self._comment:
                end = text.find("\n", at)
                if end < 0:
                    return
                self._comment, at = False, end
            else:
                at = self._read(text, at)

    def _read_heredoc(self, text: str, at: int) -> int:
        end = text.find("\n", at)
        self._line += text[at:] if end < 0 else text[at:end]
        if end < 0:
            return len(text)
        delimiter, tabs = self._heredocs[0]
        if (self._line.lstrip("\t") if tabs else self._line) == delimiter:
            del self._heredocs[0]
            self._body = bool(self._heredocs)
        self._line, self._last = "", "\n"
        return end + 1

    def _read(self, text: str, at: int) -> int:
        """Reads one token from `at` in the innermost context; returns where the next one starts."""
        char, inner = text[at], self._stack[-1]
        escaped, before = self._last == "\\", self._last
        if inner == "'":
            if char == "'":
                self._stack.pop()
            self._last = "'" if char == "'" else "x"
            return at + 1
        if escaped:
            self._last = self._before_escape if char == "\n" else "x"
            return at + 1
        self._before_escape = before if char == "\\" else "x"
        self._last = "x" if char == before == "$" else char
        if char == "`":
            self._toggle("`")
        elif char == '"':
            self._quote_mark(inner)
        elif char in "({" and before == "$":
            return self._open(text, at, inner)
        elif inner not in ('"', '"${'):
            return self._read_bare(text, at, inner, before)
        elif inner == '"${' and char == "}":
            self._stack.pop()
        elif inner == '"${' and char == "'":
            self._lost = 'a value cannot be quoted after quotes inside "${…}"'
        return at + 1

    def _toggle(self, mark: str) -> None:
        if mark in self._stack:
            while self._stack.pop() != mark:
                pass
        else:
            self._stack.append(mark)

    def _quote_mark(self, inner: str) -> None:
        if inner == '"':
            self._stack.pop()
        else:
            self._stack.append('"')

    def _open(self, text: str, at: int, inner: str) -> int:
        if text.startswith("((", at):
            self._stack += ["((", "(("]
            return at + 2
        if text[at] == "(":
            self._stack.append("$(")
        else:
            self._stack.append('"${' if inner in ('"', '"${') else "${")
        self._last = "\n" if text[at] == "(" else "x"
        return at + 1

    def _read_bare(self, text: str, at: int, inner: str, before: str) -> int:
        char = text[at]
        if char == "'":
            if before == "$":
                self._lost = "a value cannot be quoted after $'…'"
            self._stack.append("'")
        elif char == "(":
            if before == "(" and inner == "(":
                self._lost = "a value cannot be quoted after `((`, which may be arithmetic"
            self._stack.append("((" if inner == "((" else "(")
        elif char == ")" and inner in ("(", "$(", "(("):
            self._stack.pop()
        elif char == "}" and inner == "${":
            self._stack.pop()
        elif char == "#" and before == "?":
            self._lost = "a value cannot be quoted after a `#` that may start a comment"
        elif char == "#" and before in " \t\n;&|()" and inner not in ("${", "(("):
            self._comment = True
        elif char == "\n" and self._heredocs:
            self._body, self._line = True, ""
        elif char == "<" and inner != "((":
            return self._redirect(text, at)
        elif char.isalnum() or char == "_":
            return self._word(text, at, before)
        return at + 1

    def _redirect(self, text: str, at: int) -> int:
        if text.startswith("<<<", at):
            return at + 3
        if not text.startswith("<<", at):
            return at + 1
        match = _HEREDOC.match(text, at)
        if match is None:
            self._lost = "a value cannot be quoted after this here-document"
            return at + 2
        self._heredocs.append((match[2] or match[3] or match[4] or "", bool(match[1])))
        self._last = "x"
        return match.end()

    def _word(self, text: str, at: int, before: str) -> int:
        match = _WORD.match(text, at)
        end = match.end() if match else at + 1
        if text[at:end] == "case" and before in " \t\n;&|()" and "$(" in self._stack:
            self._lost = "a value cannot be quoted after `case` inside $(…)"
        self._last = "x"
        return end
