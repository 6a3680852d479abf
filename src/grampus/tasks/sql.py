"""SQL statements through SQLAlchemy, in one transaction: all of them take effect, or none does.

The result is the rows of the last statement, as objects. (MySQL commits by itself at each DDL
statement; no client can help that.)
"""

from __future__ import annotations

import base64
import datetime
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import event, exc

from grampus.model.template import evaluate, render
from grampus.model.workflow import Sql
from grampus.tasks.failure import TaskFailure, class_names, one_line
from grampus.tasks.statements import split
from grampus.tasks.value import is_json


def run(action: Sql, scope: Mapping[str, Any], bundle: str | None) -> list[dict[str, Any]]:
    """Raises TaskFailure: no driver, a missing parameter, what the database says."""
    engine = _engine(render(action.url, scope, quote=False))
    statements = split(_text(action, scope, bundle), engine.dialect.name)
    if not statements:
        raise TaskFailure("there is no SQL statement to run")
    params = evaluate(action.params, scope)
    rows: list[dict[str, Any]] = []
    try:
        with engine.begin() as connection:
            for number, statement in enumerate(statements, 1):
                rows = _execute(connection, statement, number, params, action.max_rows)
    except exc.DBAPIError as error:
        cause = error.orig if error.orig is not None else error
        shown = " ".join((error.statement or "").split())[:200]
        names = tuple(dict.fromkeys(class_names(error) + class_names(cause)))
        raise TaskFailure(f"{one_line(cause)} in: {shown}", names) from error
    except exc.SQLAlchemyError as error:
        raise TaskFailure(one_line(error), class_names(error)) from error
    finally:
        engine.dispose()
    return rows


def _text(action: Sql, scope: Mapping[str, Any], bundle: str | None) -> str:
    if action.file is None:
        return render(action.statement or "", scope, quote=False)
    name = render(action.file, scope, quote=False)
    if bundle is None:
        raise TaskFailure(f"the file {name!r} should be in the bundle, but there is no bundle")
    path = Path(bundle, name).resolve()
    if not path.is_relative_to(Path(bundle).resolve()):
        raise TaskFailure(f"the file {name!r} is not inside the bundle")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TaskFailure(f"the file {name!r} of the bundle cannot be read: {error}") from None


def _engine(url: str) -> sqlalchemy.Engine:
    try:
        parsed = sqlalchemy.make_url(url)
        engine = sqlalchemy.create_engine(parsed, poolclass=sqlalchemy.NullPool)
    except ModuleNotFoundError as error:
        raise TaskFailure(
            f"the database driver {error.name!r} is not installed where this worker runs: "
            f"install it there, or name another one in the URL (dialect+driver://...)",
            class_names(error),
        ) from None
    except exc.NoSuchModuleError as error:
        raise TaskFailure(
            f"there is no SQL dialect {url.partition(':')[0]!r}: {one_line(error)}",
            class_names(error),
        ) from None
    except exc.ArgumentError:
        raise TaskFailure(
            "the url is no SQLAlchemy URL (dialect://user:password@host/database)"
        ) from None
    if engine.dialect.name == "sqlite":
        _real_transactions(engine)
    return engine


def _real_transactions(engine: sqlalchemy.Engine) -> None:
    """Python's sqlite3 leaves DDL outside of the transaction, unless it is told not to help."""

    def connected(connection: Any, _record: Any) -> None:
        connection.isolation_level = None

    def begun(connection: sqlalchemy.Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    event.listen(engine, "connect", connected)
    event.listen(engine, "begin", begun)


def _execute(
    connection: sqlalchemy.Connection,
    statement: str,
    number: int,
    params: dict[str, Any],
    max_rows: int,
) -> list[dict[str, Any]]:
    clause = sqlalchemy.text(statement)
    wanted = clause.compile(dialect=connection.dialect).params
    missing = sorted(set(wanted) - set(params))
    if missing:
        names = ", ".join(f":{name}" for name in missing)
        raise TaskFailure(f"statement {number} uses {names}, which params do not have")
    result = connection.execute(clause, {name: params[name] for name in wanted})
    if not result.returns_rows:
        return []
    columns = list(result.keys())
    rows = result.fetchmany(max_rows)
    if result.fetchone() is not None:
        print(f"grampus: only the first {max_rows} rows are kept (max_rows)", file=sys.stderr)
    result.close()
    return [{name: plain(item) for name, item in zip(columns, row, strict=True)} for row in rows]


def plain(value: Any) -> Any:
    """A database value as JSON: dates and times in ISO 8601, bytes in base64, the rest as text."""
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(bytes(value)).decode("ascii")
    return value if is_json(value) else str(value)
