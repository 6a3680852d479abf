"""A noun of the command line, and how the help of its verbs reads.

Rule: an argument is written as it is typed, `NAME`, in brackets where it may be left out, and its
type is told only by its help. Everything else is as typer has it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand

F = TypeVar("F", bound=Callable[..., Any])


class Verb(TyperCommand):
    """One command. `ctx` and `formatter` are of another class from version to version of typer."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        arguments = [p for p in self.get_params(ctx) if p.param_type_name == "argument"]
        return ["[OPTIONS]", *map(_piece, arguments)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        parameters = self.get_params(ctx)
        arguments = [
            (_name(p), getattr(p, "help", "") or "")
            for p in parameters
            if p.param_type_name == "argument"
        ]
        if arguments:
            with formatter.section("Arguments"):
                formatter.write_dl(arguments)
        records = [p.get_help_record(ctx) for p in parameters if p.param_type_name == "option"]
        with formatter.section("Options"):
            formatter.write_dl([record for record in records if record is not None])


class Noun(typer.Typer):
    """What verbs belong to: `@app.command()` makes a Verb."""

    def __init__(self, name: str, help: str) -> None:
        super().__init__(name=name, help=help, no_args_is_help=True)

    def command(self, name: str | None = None, **how: Any) -> Callable[[F], F]:
        return super().command(name, **{"cls": Verb, **how})


def _name(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper())


def _piece(parameter: Any) -> str:
    dots = "..." if parameter.nargs != 1 else ""
    piece = f"{_name(parameter)}{dots}"
    return piece if parameter.required else f"[{piece}]"
