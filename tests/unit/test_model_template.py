"""Templates: references, values, and the closed language."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from grampus.model.template import (
    OUTPUT_LIMIT,
    References,
    TemplateError,
    check_quoting,
    check_raw,
    escape,
    evaluate,
    is_simple,
    is_template,
    references,
    references_in,
    render,
    render_simple,
    tick_scope,
)

SCOPE: dict[str, Any] = {
    "params": {
        "text": "a b'; $(id)",
        "n": 3,
        "yes": True,
        "none": None,
        "list": [1, "two"],
        "fields": {"items": 7, "__class__": "mine", "deep": [{"x": 1}]},
    },
    "tasks": {"a": {"output": {"rows": 5}}, "silent": {}},
    "tick": tick_scope(1_790_000_000_123, "Europe/Paris"),
    "run": {"id": "abc", "workflow": "w", "version": 2},
}


def test_a_value_in_a_command_is_one_word() -> None:
    text = "echo {{ params.text }} {{ params.list }} {{ params.yes }} {{ params.none }}."
    assert render(text, SCOPE, True) == """echo 'a b'"'"'; $(id)' '[1,"two"]' true ''."""


def test_a_value_is_quoted_for_the_quotes_that_it_stands_in() -> None:
    text = "\"<{{ params.text }}>\" '<{{ params.text }}>'"
    assert render(text, SCOPE, True) == """"<a b'; \\$(id)>" '<a b'"'"'; $(id)>'"""


def test_raw_and_filters_come_before_quoting() -> None:
    assert render("{{ params.text | upper }}", SCOPE, True) == """'A B'"'"'; $(ID)'"""
    assert render("{{ params.text | upper | raw }}", SCOPE, True) == "A B'; $(ID)"
    assert render("{{ params.text | raw | upper }}", SCOPE, True) == """'A B'"'"'; $(ID)'"""
    assert render("{{ params.text | raw }}", SCOPE, True) == "a b'; $(id)"
    assert render("{{ params.list | join('-') }}", SCOPE, True) == "1-two"


def test_only_a_number_may_stand_in_arithmetic() -> None:
    assert render("echo $(( {{ params.n }} + 1 ))", SCOPE, True) == "echo $(( 3 + 1 ))"
    with pytest.raises(TemplateError, match="only a number"):
        render("echo $(( {{ params.text }} ))", SCOPE, True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("echo `echo {{ params.n }}`", "backticks"),
        ("cat <<EOF\n{{ params.n }}\nEOF", "here-document"),
        ("cat <<'EOF'\n{{ params.n }}\nEOF", "here-document"),
        ("true # {{ params.n }}", "comment"),
        ("(( {{ params.n }} ))", "arithmetic"),
        ("echo ${{ params.n }}", "right after"),
        ("echo \\{{ params.n }}", "right after"),
        ('echo "${x:-{{ params.n }}}"', "inside"),
        ("$(case a in a) echo {{ params.n }};; esac)", "case"),
        ("{% if params.n %}'{% endif %}{{ params.n }}", "must close there"),
        ("{% for i in params.list %}'{% endfor %}", "must close there"),
    ],
)
def test_where_nothing_can_be_quoted_is_an_error(text: str, message: str) -> None:
    with pytest.raises(TemplateError, match=message):
        check_quoting(text)
    with pytest.raises(TemplateError, match=message):
        render(text, SCOPE, True)


@pytest.mark.parametrize(
    "text",
    [
        "cat <<EOF\nx\nEOF\necho {{ params.n }}",
        "true # comment\necho {{ params.n }}",
        "echo a#b {{ params.n }} ${% raw %}{#x}{% endraw %} {{ params.n }}",
        "{% if params.n %}echo '{{ params.text }}'{% else %}true{% endif %}; echo {{ params.n }}",
        "{% for i in params.list %} {{ i }}{% endfor %}",
        'echo "$(echo {{ params.text }} "{{ params.text }}")"',
        "awk '{ print $1 }' {{ params.text }}",
        "echo `date` {{ params.n }}",
        "(cd /; echo {{ params.text }}) && { echo {{ params.n }}; }",
    ],
)
def test_ordinary_commands_pass(text: str) -> None:
    check_quoting(text)
    render(text, SCOPE, True)


def test_nested_quotes_reach_the_shell_as_one_value() -> None:
    text = """printf '[%s]' "$(printf '%s' "{{ params.text }}")" '{{ params.text }}'"""
    done = subprocess.run(
        ["/bin/sh", "-c", render(text, SCOPE, True)], capture_output=True, text=True
    )
    assert done.stdout == "[a b'; $(id)][a b'; $(id)]"


def test_a_nul_cannot_be_part_of_a_command() -> None:
    with pytest.raises(TemplateError, match="NUL"):
        render("{{ params.x }}", {"params": {"x": "a\0b"}}, True)


def test_fields_come_before_methods() -> None:
    assert evaluate("{{ params.fields.items }}", SCOPE) == 7
    assert evaluate("{{ params.fields.items + 0 }}", SCOPE) == 7
    assert evaluate("{{ params.fields.deep[0].x }}", SCOPE) == 1
    assert evaluate("{{ params.fields['__class__'] ~ '' }}", SCOPE) == "mine"


def test_exactly_one_expression_keeps_its_type() -> None:
    assert evaluate("{{ params.list }}", SCOPE) == [1, "two"]
    assert evaluate("{{ params.n + 1 }}", SCOPE) == 4
    assert evaluate("{{ params.list | map('string') }}", SCOPE) == ["1", "two"]
    assert evaluate(" {{ params.n }}", SCOPE) == " 3"
    assert evaluate("{{ params.n }}{{ params.n }}", SCOPE) == "33"
    deep = {"a": ["{{ params.n }}", {"b": "x{{ params.n }}"}], "{{ key }}": None}
    assert evaluate(deep, SCOPE) == {"a": [3, {"b": "x3"}], "{{ key }}": None}


def test_an_object_of_any_kind_is_handed_on_but_never_written() -> None:
    thing = object()
    scope = {"tasks": {"a": {"output": thing}}}
    assert evaluate("{{ tasks.a.output }}", scope) is thing
    with pytest.raises(TemplateError, match="type object"):
        render("<{{ tasks.a.output }}>", scope, False)


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__ }}",
        "{{ params.__class__ }}",
        "{{ params['__class__'] }}",
        "{{ params.list.append(1) }}",
        "{{ params | attr('__class__') }}",
        "{{ ''.format(1) }}",
        "{{ range.__globals__ }}",
        "{{ params.get.__self__ }}",
        "{% set x = 1 %}",
        "{% include 'x' %}",
        "{% macro m() %}{% endmacro %}",
        "{{ lipsum() }}",
        "{{ self }}",
        "{{ 'a' * 9999999 }}",
        "{{ 9 ** 99999 }}",
        "{{ '%999999999d' % 1 }}",
        "{{ range(99999999) }}",
        "{{ 1 / 0 }}",
        "{{ params.missing }}",
        "{{ tasks.silent.output }}",
        "{{ params.n.x.y }}",
    ],
)
def test_there_is_no_way_out(text: str) -> None:
    with pytest.raises(TemplateError):
        evaluate(text, SCOPE)
    with pytest.raises(TemplateError):
        render("x" + text, SCOPE, True)


def test_output_is_bounded() -> None:
    scope = {"params": {"x": "y" * (OUTPUT_LIMIT // 2 + 1)}}
    for text in ("{{ params.x }}{{ params.x }}", "{{ params.x ~ '' }}{{ params.x }}"):
        with pytest.raises(TemplateError, match="longer"):
            render(text, scope, False)


def test_references_are_found_wherever_they_are() -> None:
    text = "{% for i in params.b %}{{ i }}{{ tasks.z.output[params.a] }}{% endfor %}"
    assert references(text) == References(("a", "b"), ("z",))
    value = {"x": ["{{ tasks.t.output.u }}", 3], "{{ params.not_me }}": "{{ params['p'] }}"}
    assert references_in(value) == References(("p",), ("t",))


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        ("\n{{ parms.x }}", "did you mean `params`", 2),
        ("a\nb\n{{ tick.dat }}", "did you mean `date`", 3),
        ("{{ run.ids }}", "did you mean `id`", 1),
        ("{{ tasks.a }}", "tasks.a.output", 1),
        ("{{ tasks.a.rows + 1 }}", "tasks.a.output", 1),
        ("{{ params[run.id] }}", "cannot be computed", 1),
        ("{{ params.x | uper }}", "did you mean `upper`", 1),
        ("{{ params.x", "unexpected end", 1),
        ("${#x}", "begins a comment", 1),
        ("\n{% if params.x %}", "end of template", 2),
        ("{% for params in [] %}{% endfor %}", "loop variable", 1),
        ("{{ (" + "(" * 5000, "nested|unexpected|deep", None),
    ],
)
def test_what_is_wrong_is_told_with_its_line(text: str, message: str, line: int | None) -> None:
    with pytest.raises(TemplateError, match=message) as caught:
        references(text)
    assert caught.value.line == line or line is None


def test_simple_is_text_and_plain_references() -> None:
    assert is_simple("plain")
    assert is_simple('x {{ params.a.b[0] }} {{tasks.t.output["k k"] | raw}} {{ tick.date }}')
    assert not is_simple("{{ params.a | upper }}")
    assert not is_simple("{# note #}")
    assert not is_simple("{{ other.x }}")
    assert not is_simple("{{{ params.x }}")
    with pytest.raises(TemplateError, match="more than plain"):
        render_simple("{{ 1 }}", SCOPE, False)


def test_an_escaped_text_is_its_own_value() -> None:
    for text in ("{{ x }}", "{% endraw %}{{", "a\r{{\r\n", "{{{%", "{#", "{\r{{", "plain"):
        assert evaluate(escape(text), {}) == text
        assert render(f"<{escape(text)}", {}, False) == f"<{text}"
    assert is_template(escape("{{"))


def test_sql_text_takes_no_values_unless_they_are_marked() -> None:
    check_raw("select 1 from {{ params.t | raw }}")
    check_raw("select :x")
    for text in ("select {{ params.x }}", "select {{ params.x + 1 }}"):
        with pytest.raises(TemplateError, match="SQL"):
            check_raw(text)


def test_a_tick_is_read_on_its_calendar() -> None:
    tick = tick_scope(1_767_225_599_000, "Asia/Tokyo")
    assert (tick["date"], tick["time"]) == ("2026-01-01", "08:59:59")
    assert tick["iso"] == "2026-01-01T08:59:59+09:00"
    assert (tick["yesterday"], tick["timestamp"]) == ("2025-12-31", 1_767_225_599)
