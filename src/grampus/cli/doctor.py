"""`grampus doctor`: what this machine gives a node, in one line each, and what to do about it.

Rule: it looks, and changes nothing. It needs no node; when one runs it says so. The probes are in
`checkup`.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from grampus.cli.options import DataFolder, Format, Output


def doctor(
    data: DataFolder = None,
    listen: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Where a node here would answer.")
    ] = None,
    output: Output = Format.text,
) -> None:
    """Look whether a node runs well on this machine.

    Says what to do where it does not. Every line is ok, warn or fail; leaves with 1 when one is
    fail."""
    from grampus.cli.checkup import check_machine
    from grampus.cli.output import clean, document, paint
    from grampus.config import load_config

    findings = check_machine(load_config({"data": data, "listen": listen}))
    if output is Format.json:
        document(findings)
    else:
        width = max(len(each.name) for each in findings)
        for each in findings:
            state = {"ok": "SUCCEEDED", "warn": "RETRYING", "fail": "FAILED"}[each.state]
            advice = f"  → {each.advice}" if each.advice else ""
            mark = paint(f"{each.state:<4}", state, sys.stdout)
            print(f"{mark}  {each.name:<{width}}  {clean(each.found)}{advice}")
    if any(each.state == "fail" for each in findings):
        raise typer.Exit(1)
