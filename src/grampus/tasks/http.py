"""One HTTP request. Result: `{"status": int, "headers": {...}, "body": JSON value or text}`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import httpx

from grampus.model.run import BLOB_LIMIT
from grampus.model.template import evaluate, render
from grampus.model.workflow import Http
from grampus.tasks.failure import TaskFailure, class_names, one_line
from grampus.tasks.value import is_json

#: To connect, in seconds. How long the answer may take is the task's timeout.
CONNECT_TIMEOUT = 30.0
#: Without any byte for so long, in seconds, the request has failed.
SILENCE_TIMEOUT = 600.0
#: Characters of an unexpected answer that are shown.
EXCERPT = 500


def run(action: Http, scope: Mapping[str, Any]) -> dict[str, Any]:
    """Raises TaskFailure: no answer, an unexpected status, too long."""
    url = render(action.url, scope, quote=False)
    headers = {name: render(text, scope, quote=False) for name, text in action.headers.items()}
    extra: dict[str, Any] = {}
    if action.body is not None:
        extra["content"] = render(action.body, scope, quote=False).encode()
    elif action.json is not None:
        extra["json"] = evaluate(action.json, scope)
    redirect = not any(300 <= status < 400 for status in action.expect)
    timeout = httpx.Timeout(SILENCE_TIMEOUT, connect=CONNECT_TIMEOUT)
    name = f"{action.method} {_public(url)}"
    try:
        with (
            httpx.Client(timeout=timeout, follow_redirects=redirect) as client,
            client.stream(action.method, url, headers=headers, **extra) as response,
        ):
            content = _read(response, name)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise TaskFailure(f"{name}: {one_line(error)}", class_names(error)) from error
    text = content.decode(response.encoding or "utf-8", "replace")
    _check_status(action, name, response.status_code, text)
    return {
        "status": response.status_code,
        "headers": {key.lower(): value for key, value in response.headers.items()},
        "body": _body(response.headers.get("content-type", ""), content, text),
    }


def _read(response: httpx.Response, name: str) -> bytes:
    parts, size = [], 0
    for part in response.iter_bytes():
        parts.append(part)
        size += len(part)
        if size > BLOB_LIMIT:
            raise TaskFailure(f"{name}: the answer has more than {BLOB_LIMIT:,} bytes")
    return b"".join(parts)


def _check_status(action: Http, name: str, status: int, text: str) -> None:
    if status in action.expect or (not action.expect and 200 <= status < 300):
        return
    expected = ", ".join(str(code) for code in action.expect) or "200 to 299"
    raise TaskFailure(
        f"{name}: status {status}, expected {expected}: {text[:EXCERPT]}",
        ("UnexpectedStatus", "HTTPStatusError", "HTTPError", "Exception"),
    )


def _body(content_type: str, content: bytes, text: str) -> Any:
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "application/json" or kind.endswith("+json"):
        try:
            value = json.loads(content)
        except (ValueError, RecursionError):
            return text
        return value if is_json(value) else text
    return text


def _public(url: str) -> str:
    """`url` without what may be secret in it: user, password, query."""
    try:
        parts = httpx.URL(url)
    except (httpx.InvalidURL, TypeError):
        return url.partition("?")[0]
    return str(parts.copy_with(username="", password="", query=None, fragment=None))
