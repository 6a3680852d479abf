"""Running a user's Python file once, as a module, and leaving this process as it was."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from grampus.errors import Problem
from grampus.sdk.flow import exception_problem
from grampus.sdk.trace import shown


@contextlib.contextmanager
def importing(folder: Path) -> Iterator[None]:
    """Imports find the modules of `folder` first; afterwards those are forgotten again.

    What is printed meanwhile goes to stderr: stdout belongs to the answer of the command.
    """
    hidden = {name: module for name, module in list(sys.modules.items()) if _covers(folder, name)}
    for name in hidden:
        del sys.modules[name]
    path, silent = list(sys.path), sys.dont_write_bytecode
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode = True
    importlib.invalidate_caches()
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        sys.path[:] = path
        sys.dont_write_bytecode = silent
        for name in set(sys.modules) - before:
            if _below(folder, sys.modules[name]):
                del sys.modules[name]
        sys.modules.update(hidden)


def _covers(folder: Path, name: str) -> bool:
    """Whether `folder` has a module of its own in place of the loaded module `name`."""
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names or top in ("grampus", "__main__"):
        return False
    return (folder / f"{top}.py").is_file() or (folder / top / "__init__.py").is_file()


def _below(folder: Path, module: ModuleType) -> bool:
    file = getattr(module, "__file__", None)
    if file is not None:
        return Path(file).is_relative_to(folder)
    return any(Path(path).is_relative_to(folder) for path in getattr(module, "__path__", ()))


def run_file(path: Path) -> tuple[ModuleType | None, list[Problem]]:
    """The module that `path` makes, named as the file; None and why when it cannot be run.

    Call it inside `importing`.
    """
    file, name = shown(str(path)), path.stem
    if name in sys.stdlib_module_names or name == "grampus":
        text = f"a file of this name hides the module `{name}`: rename it"
        return None, [Problem(text, file)]
    try:
        code = compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
    except OSError as error:
        return None, [Problem(f"cannot be read: {error.strerror}", file)]
    except SyntaxError as error:
        return None, [Problem(f"{type(error).__name__}: {error.msg}", file, error.lineno or None)]
    except (ValueError, RecursionError) as error:
        return None, [Problem(f"is no Python: {error}", file)]
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module
    try:
        exec(code, module.__dict__)
    except SystemExit:
        return None, [Problem("ends the process while it is imported (SystemExit)", file)]
    except Exception as error:
        problem = exception_problem(error, path.parent)
        at, line = (problem.file, problem.line) if problem.file else (file, None)
        text = f"cannot be imported: {problem.message}"
        return None, [Problem(text, at, line)]
    return module, []
