"""Where a statement ends."""

from __future__ import annotations

import pytest
import sqlalchemy
from sqlalchemy.dialects import postgresql, sqlite

from grampus.tasks.statements import split


@pytest.mark.parametrize(
    ("text", "dialect", "statements"),
    [
        ("SELECT 1", "sqlite", ["SELECT 1"]),
        (" ; SELECT 1;;\n-- end;\n", "sqlite", ["SELECT 1"]),
        ("SELECT ';' ; SELECT \";\"", "sqlite", ["SELECT ';'", 'SELECT ";"']),
        ("SELECT 'it''s;' ; SELECT 2", "postgresql", ["SELECT 'it''s;'", "SELECT 2"]),
        ("SELECT 1 /* a; /* b; */ c; */; SELECT 2", "postgresql", ["SELECT 1", "SELECT 2"]),
        ("SELECT 1 /* a; /* b; */; SELECT 2", "sqlite", ["SELECT 1", "SELECT 2"]),
        ("DO $x$ BEGIN a; b; END $x$; SELECT 1", "postgresql",
         ["DO $x$ BEGIN a; b; END $x$", "SELECT 1"]),
        ("SELECT E'a\\';' ; SELECT 2", "postgresql", ["SELECT E'a\\';'", "SELECT 2"]),
        ("SELECT 'a\\';' ; SELECT 2", "mysql", ["SELECT 'a\\';'", "SELECT 2"]),
        ("SELECT 'a\\' ; SELECT 2", "postgresql", ["SELECT 'a\\'", "SELECT 2"]),
        ("SELECT 1 - -1; SELECT 4 / 2", "sqlite", ["SELECT 1 - -1", "SELECT 4 / 2"]),
        ("", "sqlite", []),
        ("-- nothing", "sqlite", []),
    ],
)  # fmt: skip
def test_statements_end_at_semicolons_that_mean_it(
    text: str, dialect: str, statements: list[str]
) -> None:
    assert split(text, dialect) == statements


def test_the_body_of_a_trigger_is_one_statement_for_sqlite() -> None:
    trigger = "CREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT 1; SELECT 2; END"
    assert split(f"SELECT 0; {trigger}; SELECT 3", "sqlite") == ["SELECT 0", trigger, "SELECT 3"]


@pytest.mark.parametrize(
    "literal", ["':x'", "' :x and :y'", "'12:30:45'", "'a\\:b'", '":x"', "'::'"]
)
def test_a_colon_in_quotes_is_no_parameter_and_stays_as_it_is(literal: str) -> None:
    (statement,) = split(f"SELECT {literal}, :real", "sqlite")
    compiled = sqlalchemy.text(statement).compile(dialect=sqlite.dialect())
    assert list(compiled.params) == ["real"]
    assert str(compiled) == f"SELECT {literal}, ?"


def test_a_cast_is_no_parameter() -> None:
    (statement,) = split("SELECT :a::int, b::text", "postgresql")
    compiled = sqlalchemy.text(statement).compile(dialect=postgresql.dialect())
    assert list(compiled.params) == ["a"] or list(compiled.params) == []
