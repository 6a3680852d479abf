"""What stands for a value that does not exist yet: a task's output, a param of the run.

Rule: a reference can be handed to a task, and fields of it can; anything that would need the value
now is an error that says what to do instead.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from grampus.errors import Problem, UsageError

_FIELD = re.compile(r"[A-Za-z][A-Za-z0-9_]*\Z", re.ASCII)


class TraceError(UsageError):
    """A workflow function asked for a value while it was traced."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        super().__init__(str(problem))


class Reference:
    """`root` is `params.NAME` or `tasks.NAME.output`; `path` leads into the value."""

    __slots__ = ("_owner", "_path", "_root")

    def __init__(self, owner: object, root: str, path: tuple[str | int, ...] = ()) -> None:
        self._owner = owner
        self._root = root
        self._path = path

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return type(self)(self._owner, self._root, (*self._path, name))

    def __getitem__(self, key: object) -> Any:
        if isinstance(key, bool) or not isinstance(key, str | int):
            self._refuse("cannot be sliced or looked up by that")
        assert isinstance(key, str | int)
        return type(self)(self._owner, self._root, (*self._path, key))

    def __repr__(self) -> str:
        return f"<{spell(self)}>"

    def _refuse(self, what: str) -> NoReturn:
        raise NotImplementedError

    def _iterate(self, *_: object) -> NoReturn:
        self._refuse("cannot be iterated, counted or searched")

    def _decide(self, *_: object) -> NoReturn:
        self._refuse("cannot decide an `if`, `while`, `and` or a comparison")

    def _print(self, *_: object) -> NoReturn:
        self._refuse("cannot become text, as in an f-string")

    def _compute(self, *_: object) -> NoReturn:
        self._refuse("cannot be computed with")

    __iter__ = __len__ = __contains__ = _iterate
    __bool__ = __lt__ = __le__ = __gt__ = __ge__ = _decide
    __eq__ = __ne__ = _decide
    __hash__ = None  # type: ignore[assignment]
    __str__ = __format__ = _print
    __call__ = __int__ = __float__ = __index__ = _compute
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _compute
    __truediv__ = __rtruediv__ = __floordiv__ = __rfloordiv__ = _compute
    __mod__ = __rmod__ = __pow__ = __rpow__ = __neg__ = __abs__ = _compute
    __or__ = __ror__ = __and__ = __rand__ = __matmul__ = __rmatmul__ = _compute


class Output(Reference):
    """What a task will return."""

    __slots__ = ()

    def _refuse(self, what: str) -> NoReturn:
        refuse(
            self,
            f"the output of a task {what}: there is none before it has run. Pass it as an "
            f"argument to a task; in the text of a shell command write {{{{ {spell(self)} }}}}",
        )


class ParamRef(Reference):
    """A param of the run."""

    __slots__ = ()

    def _refuse(self, what: str) -> NoReturn:
        refuse(
            self,
            f"a param {what}: it has no value before a run starts. Pass it as an argument to a "
            f"task; in the text of a shell command write {{{{ {spell(self)} }}}}",
        )


def refuse(reference: Reference, message: str) -> NoReturn:
    """Tells the trace and stops it: what comes after would be guesswork."""
    owner: Any = reference._owner
    raise TraceError(owner.note(None, message))


def spell(reference: Reference) -> str:
    """The reference as a template's expression, without the braces."""
    steps = [reference._root]
    for step in reference._path:
        if isinstance(step, str) and _FIELD.match(step):
            steps.append(f".{step}")
        elif isinstance(step, int):
            steps.append(f"[{step}]")
        else:
            steps.append(f"[{json.dumps(step, ensure_ascii=False)}]")
    return "".join(steps)


def owner_of(reference: Reference) -> object:
    return reference._owner


def task_of(reference: Reference) -> str:
    """The name of the task whose output it is."""
    return reference._root.split(".")[1]
