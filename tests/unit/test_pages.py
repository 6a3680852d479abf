"""How pages are compared with what comes out: a page that is wrong must not pass."""

from __future__ import annotations

import pytest

from tests.pages import comes_out, commands_of

TABLE = "NAME  STATE    ADDRESS\ns1    leads    …\ns2    follows  …\n"


@pytest.mark.parametrize(
    ("wanted", "out"),
    [
        ("blue\n", "blue"),
        ("", ""),
        ("starting …\nready now\n…\n", "starting s1\nready now"),
        ("starting …\nready now\n…\n", "starting s1\nready now\na line\nanother"),
        ("…\nlast\n", "first\nsecond\nlast"),
        (TABLE, "NAME         STATE  ADDRESS\ns1  leads  a:1\ns2  follows  b:22"),
    ],
)
def test_what_is_shown_passes(wanted: str, out: str) -> None:
    assert comes_out(wanted, out)


@pytest.mark.parametrize(
    ("wanted", "out"),
    [
        ("blue\n", "green"),
        ("", "something"),
        ("it is …\n", "it is\nerror: not"),
        ("starting …\nready now\n", "starting s1\nerror: no\nready now"),
        ("…\nlast\n", "first\nlast\nerror: not the last"),
        (TABLE, "NAME  STATE  ADDRESS\ns1  leads  a:1\ns2  silent  b:2"),
        (TABLE, "NAME  STATE  ADDRESS\ns1  leads  a:1\ns2  follows  b:2\n\n→ s2 is away"),
    ],
)
def test_what_is_not_shown_does_not(wanted: str, out: str) -> None:
    assert not comes_out(wanted, out)


def test_commands_come_with_what_they_print() -> None:
    page = "text\n```console\n$ one\nout\n$ two\n```\n```sh\n$ not this\n```\n"
    assert commands_of(page) == [("one", "out\n"), ("two", "")]
