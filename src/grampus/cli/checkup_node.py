"""The probes of `grampus doctor` that ask the node of this user, where one runs, and its ports.

Rule: it asks as any client would, for no more than a few seconds.
"""

from __future__ import annotations

import socket

from msgspec.structs import replace

from grampus.cli.finding import Finding
from grampus.config import Config
from grampus.errors import GrampusError
from grampus.sdk.answers import Worker

#: How long the node may take to answer, in seconds.
PATIENCE = 3.0


def look_at_node(config: Config) -> Finding:
    """Where it runs, how it contains attempts, and what is wrong with it."""
    from grampus.sdk.discovery import nodes

    url = _running(config)
    if url is None:
        found = f"none of this user at {config.listen}"
        if elsewhere := ", ".join(n.url for n in nodes(config.state)):
            return Finding("node", "ok", f"{found}; at {elsewhere}", "look at one with --listen")
        return Finding("node", "ok", found)
    try:
        workers, alarms = _ask(config, url)
    except GrampusError as error:
        advice = "look at its log, or at who may use it (--token-file)"
        return Finding("node", "warn", f"runs at {url} and cannot be asked: {error}", advice)
    kinds = sorted({worker.containment for worker in workers if worker.containment})
    held = f"; attempts are held together by {', '.join(kinds)}" if kinds else ""
    if alarms:
        advice = "mend it: it is tried again and again; grampus worker list, grampus schedule list"
        return Finding("node", "fail", f"runs at {url}{held}; {'; '.join(alarms)}", advice)
    return Finding("node", "ok", f"runs at {url}{held}")


def _ask(config: Config, url: str) -> tuple[list[Worker], list[str]]:
    from grampus.sdk.client import Client

    with Client(config=replace(config, server=(url,)), timeout=PATIENCE) as client:
        return client.workers(), client.alarms()


def _running(config: Config) -> str | None:
    """The address of the node that this user runs at the configured port."""
    from grampus.sdk.discovery import nodes

    port = str(config.listen.port)
    return next((n.url for n in nodes(config.state) if n.url.rpartition(":")[2] == port), None)


def look_at_ports(config: Config) -> Finding:
    if config.listen.port == 0:
        return Finding("ports", "ok", "any free ones are taken")
    if _running(config):
        return Finding("ports", "ok", f"{config.listen} belongs to your node")
    host = config.listen.host
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in (config.listen.port, config.listen.node_port):
        with socket.socket(family) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind((host, port))
            except OSError as error:
                found = f"port {port} cannot be had: {error.strerror}"
                return Finding("ports", "fail", found, "choose another: grampus up --listen")
    return Finding("ports", "ok", f"{config.listen.port} and {config.listen.node_port} are free")
