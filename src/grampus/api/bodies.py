"""How bodies are read: bounded in size and in time, strict in their fields, all problems at once.

Rule: a route names the model of its body and its limit; what does not fit never reaches the route.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect

from grampus.api.problems import HttpProblem, problems_of

JSON_LIMIT = 1024 * 1024
WORKFLOW_LIMIT = 8 * 1024 * 1024
BUNDLE_LIMIT = 16 * 1024 * 1024
#: Longest pause between two pieces of a body, in seconds.
PATIENCE = 30.0

Model = TypeVar("Model", bound=BaseModel)


async def pieces(request: Request, limit: int, what: str = "a body here") -> AsyncIterator[bytes]:
    """The body as it comes. Raises HttpProblem past `limit` bytes, or when it stops coming."""
    too_large = HttpProblem("too-large", f"{what} is at most {limit} bytes")
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > limit:
        raise too_large
    size, stream = 0, request.stream()
    while True:
        try:
            async with asyncio.timeout(PATIENCE):
                piece = await anext(stream, None)
        except TimeoutError:
            raise HttpProblem("request-timeout", f"no data for {PATIENCE:.0f} seconds") from None
        except ClientDisconnect:
            raise HttpProblem("malformed", "the connection ended within the body") from None
        if piece is None:
            return
        size += len(piece)
        if size > limit:
            raise too_large
        if piece:
            yield piece


def json_body(model: type[Model], limit: int) -> Callable[[Request], Awaitable[Model]]:
    """A dependency that gives the JSON body of at most `limit` bytes as a `model`."""

    async def read(request: Request) -> Model:
        kind = request.headers.get("content-type", "application/json").partition(";")[0].strip()
        if kind.lower() != "application/json":
            raise HttpProblem("unsupported-media-type", f"send application/json, not {kind[:100]}")
        data = b"".join([piece async for piece in pieces(request, limit)])
        try:
            return model.model_validate(msgspec.json.decode(data))
        except (msgspec.DecodeError, RecursionError) as error:
            raise HttpProblem("malformed", f"the body is no JSON: {error}") from error
        except ValidationError as error:
            raise problems_of(error, model) from error

    return read


def json_body_doc(model: type[BaseModel]) -> dict[str, Any]:
    """For OpenAPI: the route reads a body of `model`, a component of the document."""
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
