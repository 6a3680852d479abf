"""Why a task failed, when the reason is known: a sentence for people instead of a traceback."""

from __future__ import annotations


class TaskFailure(Exception):
    """The attempt has failed. `names` are the class names that `Retry.on_exception` looks at."""

    def __init__(self, message: str, names: tuple[str, ...] = ()) -> None:
        self.names = names or class_names(self)
        super().__init__(message)


def class_names(error: BaseException) -> tuple[str, ...]:
    """Names of the class of `error` and its bases, most derived first, up to `Exception`."""
    return tuple(c.__name__ for c in type(error).__mro__ if c not in (object, BaseException))


def one_line(error: BaseException) -> str:
    """`ValueError: bad month`"""
    try:
        text = str(error).strip()
    except Exception as broken:
        text = f"(its text cannot be made: {type(broken).__name__})"
    name = type(error).__name__
    return f"{name}: {text}" if text else name
