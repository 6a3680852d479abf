"""`grampus config`: what the settings are and where each comes from."""

from __future__ import annotations

import typer

from grampus.cli.noun import Noun
from grampus.cli.options import DataFolder, Format, Output, connect_flags

app = Noun("config", "Settings and where they come from.")


@app.callback()
def config() -> None:
    """Settings and where they come from."""


@app.command()
def show(ctx: typer.Context, data: DataFolder = None, output: Output = Format.text) -> None:
    """Print every setting and its source.

    That is a file, the environment, an option or the default."""
    from grampus.cli.output import document, table
    from grampus.config import explain, load_config

    rows = explain(load_config({**connect_flags(ctx), "data": data}))
    if output is Format.json:
        document(rows)
        return
    shown = []
    for row in rows:
        value = ",".join(row.value) if isinstance(row.value, list) else row.value
        value = str(value).lower() if isinstance(value, bool) else value
        shown.append((row.name, "" if value is None else str(value), row.source))
    table(("SETTING", "VALUE", "SOURCE"), shown)
