"""Templates under every value: two ways of rendering agree, and no value leaves its word."""

from __future__ import annotations

import os
import subprocess
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from grampus.model import jinja
from grampus.model.template import (
    TemplateError,
    check_quoting,
    escape,
    evaluate,
    is_simple,
    is_template,
    references,
    render,
    render_simple,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
HOSTILE = st.lists(
    st.sampled_from(
        ["'", '"', "$(", ")", "`", "\\", ";", "\n", " ", "$x", "#", "&", "EOF", "a", "é"]
    ),
    max_size=8,
).map("".join)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-1e6, 1e6) | TEXT,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b", "items", "x y"]), inner, max_size=3)
    ),
    max_leaves=6,
)
STEP = st.sampled_from([".a", ".b", ".items", "[0]", "[1]", '["a"]', "['x y']", ".nope", ".count"])
PLAIN = st.builds(
    lambda root, steps, raw: f"{{{{ {root}{''.join(steps)}{raw} }}}}",
    st.sampled_from(["params.p", "tasks.t.output", "run.id", "params"]),
    st.lists(STEP, max_size=2),
    st.sampled_from(["", " | raw", "|raw"]),
)
LITERAL = st.text(st.sampled_from(list("ab {}%#'\"\n\r$\\")), max_size=5)
SIMPLE = st.lists(PLAIN | LITERAL, max_size=5).map("".join)


def outcome(function: Any, *args: Any) -> Any:
    try:
        return function(*args)
    except TemplateError:
        return TemplateError


@given(SIMPLE, JSON, st.booleans())
@settings(max_examples=400)
def test_simple_rendering_is_what_jinja_does(text: str, value: Any, quoted: bool) -> None:
    scope = {"params": {"p": value}, "tasks": {"t": {"output": value}}, "run": {"id": "r"}}
    if not is_simple(text) or not is_template(text):
        return
    expected = outcome(jinja.render, text, scope, quoted)
    assert outcome(render_simple, text, scope, quoted) == expected
    assert outcome(references, text) == outcome(jinja.references, text)


@given(PLAIN, JSON)
@settings(max_examples=200)
def test_simple_values_are_what_jinja_finds(text: str, value: Any) -> None:
    scope = {"params": {"p": value}, "tasks": {"t": {"output": value}}, "run": {"id": "r"}}
    found = outcome(evaluate, text, scope)
    if found is not TemplateError and "raw" not in text:
        assert jinja.evaluate(text, scope) == found


@given(st.text(st.sampled_from(list("{}%#raw end-\r\n\"'|x")), max_size=30))
@settings(max_examples=400)
def test_an_escaped_text_comes_back(text: str) -> None:
    assert evaluate(escape(text), {}) == text
    if is_template(text):
        assert render("<" + escape(text), {}, True) == "<" + text
    assert references(escape(text)).params == ()


def words(command: str) -> list[str]:
    done = subprocess.run(
        ["/bin/sh", "-c", command], capture_output=True, check=True, timeout=10, env={}
    )
    return os.fsdecode(done.stdout).split("\0")[:-1]


@given(HOSTILE | TEXT.filter(lambda text: "\0" not in text), HOSTILE)
@settings(max_examples=120, deadline=None)
def test_a_value_survives_the_shell_in_every_kind_of_quotes(first: str, second: str) -> None:
    command = (
        "printf '%s\\0' {{ params.a }} pre{{ params.a }}post \"<{{ params.a }}>\" "
        "'<{{ params.a }}>' {{ params.a }}{{ params.b }} \"$(printf '%s.' '{{ params.a }}')\" "
        '"$(printf "%s." {{ params.b ~ params.a }})"'
    )
    scope = {"params": {"a": first, "b": second}}
    assert words(render(command, scope, True)) == [
        first,
        f"pre{first}post",
        f"<{first}>",
        f"<{first}>",
        first + second,
        f"{first}.",
        f"{second}{first}.",
    ]


SHELL_TOKENS = st.sampled_from(
    [
        *("'", '"', "$(", ")", "`", "\\", " ", "\n", "#", "echo ", "$", "${x:-", "}", "$((", "))"),
        *("<<E\n", "<<'E'\n", "\nE\n", ";", "a", "case a in a)", "esac", "$'", "(", "{ ", "; }"),
        *("|", "=", "<<<", "$$", "\\\n", "{% if params.v %}", "{% else %}", "{% endif %}"),
        *(["{{ params.v }}"] * 6),
    ]
)
PAYLOADS = st.sampled_from(
    [
        *("$(:>pwned)", "`:>pwned`", "';:>pwned;'", '";:>pwned;"', "\n:>pwned\n", "\nE\n:>pwned\n"),
        *("\\';:>pwned;\\'", '\\";:>pwned;#', ");:>pwned;(", "))\n:>pwned\n((", "a[$(:>pwned)]"),
        *("x';:>pwned #", "};:>pwned;{", "'\"';:>pwned;'\"'"),
    ]
)


@given(st.lists(SHELL_TOKENS, min_size=2, max_size=9).map("".join), PAYLOADS)
@settings(max_examples=250, deadline=None)
def test_no_value_becomes_a_command_wherever_it_stands(
    tmp_path_factory: Any, text: str, payload: str
) -> None:
    try:
        check_quoting(text)
        command = render(text, {"params": {"v": payload}}, True)
    except TemplateError:
        return
    folder = tmp_path_factory.mktemp("shell")
    subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=folder,
        env={"PATH": "/nonexistent"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=10,
        check=False,
    )
    assert not (folder / "pwned").exists()
