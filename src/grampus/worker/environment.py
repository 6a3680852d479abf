"""The environment of every task: a white list of the worker's own, never all of it.

Passed on, when set: PATH (with the folder of the worker's Python in front, so that `python` in a
shell task is the same environment), HOME, USER, LOGNAME, SHELL, LANG, LANGUAGE, LC_*, TZ,
TMPDIR, VIRTUAL_ENV, http_proxy, https_proxy, ftp_proxy, all_proxy and no_proxy in either case,
SSL_CERT_FILE, SSL_CERT_DIR. Added: PYTHONUNBUFFERED=1, so that live logs are live. `Task.env`
and GRAMPUS_* come on top (tasks.launch). Everything else stays out: what a service manager or a
login shell gave the worker, tokens above all.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

_NAMES = frozenset(
    "PATH HOME USER LOGNAME SHELL LANG LANGUAGE TZ TMPDIR VIRTUAL_ENV "
    "SSL_CERT_FILE SSL_CERT_DIR".split()
)
_PROXIES = frozenset("http_proxy https_proxy ftp_proxy all_proxy no_proxy".split())
#: Where /bin/sh looks when nobody says.
_PATH = "/usr/local/bin:/usr/bin:/bin"


def task_environment(environ: Mapping[str, str], python: str) -> dict[str, str]:
    """What tasks get of `environ`; `python` is the path of the worker's interpreter."""
    env = {name: text for name, text in sorted(environ.items()) if _passes(name)}
    folder = os.path.dirname(python)
    path = env.get("PATH") or _PATH
    if path.split(os.pathsep)[0] != folder:
        path = folder + os.pathsep + path
    return {"PYTHONUNBUFFERED": "1", **env, "PATH": path}


def _passes(name: str) -> bool:
    return name in _NAMES or name.startswith("LC_") or name.lower() in _PROXIES
