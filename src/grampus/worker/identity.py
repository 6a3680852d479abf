"""Which machine this is, and which boot of it: so a ledger can tell that it was restarted."""

from __future__ import annotations

from pathlib import Path


def machine_id() -> str:
    """Stays the same for the life of an installation; empty where there is none."""
    return _first("/etc/machine-id", "/var/lib/dbus/machine-id")


def boot_id() -> str:
    """Changes with every boot."""
    return _first("/proc/sys/kernel/random/boot_id")


def _first(*paths: str) -> str:
    for path in paths:
        try:
            text = Path(path).read_text().strip()
        except OSError:
            continue
        if text:
            return text
    return ""
