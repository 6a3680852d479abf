"""The JSON documents of the API: one, or many by pages, as values of a type.

Rule: what the server says is decoded as what was asked for, or it is a ProtocolError that names the
question. Finding a server, repeating and refusals are left to `transport`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import msgspec

from grampus.errors import ProtocolError
from grampus.sdk.transport import Transport

T = TypeVar("T")
API = "/api/v1"
PAGE = 100


class _Page(msgspec.Struct):
    items: list[msgspec.Raw]
    next: str | None = None


class Documents:
    """Paths are below `/api/v1`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def get(self, path: str, answer: type[T], query: Mapping[str, Any] | None = None) -> T:
        return self._ask("GET", path, answer, query=query)

    def post(
        self,
        path: str,
        answer: type[T],
        body: object = None,
        *,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        repeat: bool = True,
    ) -> T:
        """`repeat` says that the server may safely get it twice."""
        return self._ask(
            "POST", path, answer, query=query, body=body, headers=headers, repeat=repeat
        )

    def do(self, method: str, path: str, *, repeat: bool = True) -> None:
        """For what is answered by nothing that one wants to know."""
        self._transport.ask(method, API + path, repeat=repeat)

    def _ask(self, method: str, path: str, answer: type[T], **more: Any) -> T:
        got = self._transport.ask(method, API + path, **more)
        try:
            return msgspec.json.decode(got.content, type=answer)
        except msgspec.DecodeError as error:
            where = f"{method} {API}{path}"
            raise ProtocolError(f"the answer to {where} is not understood: {error}") from error

    def items(self, path: str, item: type[T], query: Mapping[str, Any] | None = None) -> list[T]:
        """Of a document that has them all."""
        return [_item(raw, item, path) for raw in self.get(path, _Page, query).items]

    def pages(
        self,
        path: str,
        item: type[T],
        query: Mapping[str, Any] | None = None,
        *,
        limit: int | None = None,
        size: int = PAGE,
    ) -> Iterator[T]:
        """All items, or the first `limit`; `size` of them at a time."""
        cursor: str | None = None
        left = limit
        while left is None or left > 0:
            most = size if left is None else min(left, size)
            page = self.get(path, _Page, {**(query or {}), "limit": most, "cursor": cursor})
            items = page.items if left is None else page.items[:left]
            for raw in items:
                yield _item(raw, item, path)
            left = None if left is None else left - len(items)
            cursor = page.next
            if cursor is None or not page.items:
                return


def _item(raw: msgspec.Raw, kind: type[T], path: str) -> T:
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.DecodeError as error:
        where = f"GET {API}{path}"
        raise ProtocolError(f"an item of {where} is not understood: {error}") from error
