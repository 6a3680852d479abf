"""Which files of its folder a workflow needs.

Rule: what it names. The modules that its Python imports, wherever the `import` stands; modules of
`python.call`; `sql.file`; words of shell commands that are paths; `include`. A package comes whole.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from grampus.errors import Problem
from grampus.model.spelling import nearest
from grampus.model.template import is_template
from grampus.model.workflow import Python, Shell, Sql, Task, Workflow
from grampus.sdk.bundle import walk
from grampus.sdk.trace import Place

_WORDS = re.compile(r"[\s'\"`;|&()<>=]+")
_PATH_LIMIT = 4096


class Needs:
    """The files that are needed so far."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[Path, None] = {}
        self.problems: list[Problem] = []

    def add_source(self, path: Path) -> None:
        """A Python file, and the modules of the folder that it imports."""
        if path in self.files:
            return
        self.files[path] = None
        for name in imported(path):
            self.add_module(name)

    def add_module(self, name: str) -> bool:
        """The module or package `name` of the folder. False: it is not there."""
        top = name.partition(".")[0]
        file, package = self.folder / f"{top}.py", self.folder / top
        if package.is_dir() and (package / "__init__.py").exists():
            self._add_folder(package)
        elif file.is_file():
            self.add_source(file)
        elif package.is_dir() and next(package.rglob("*.py"), None):
            self._add_folder(package)
        else:
            return False
        return True

    def _add_folder(self, folder: Path) -> None:
        for path in walk(folder):
            if path.suffix == ".py":
                self.add_source(path)
            else:
                self.files[path] = None

    def add_path(self, text: str, base: Path) -> bool:
        """The file or folder `text`, relative to `base`. False: there is none."""
        if not text or text.startswith(("/", "~", "-")) or len(text) > _PATH_LIMIT:
            return False
        path = base / text
        try:
            inside = path.resolve().is_relative_to(self.folder.resolve())
            if not inside or path.resolve() == self.folder.resolve():
                return False
            if path.is_file():
                if path.suffix == ".py":
                    self.add_source(path)
                else:
                    self.files[path] = None
                return True
            if path.is_dir() and "/" in text:
                self._add_folder(path)
                return True
        except (OSError, ValueError):
            return False
        return False


def imported(path: Path) -> list[str]:
    """Modules that a file imports anywhere in it; a relative import stays in its package."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return []
    found: dict[str, None] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(dict.fromkeys(alias.name for alias in node.names))
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found[node.module] = None
    return list(found)


def gather(needs: Needs, workflow: Workflow, include: Iterable[str], place: Place) -> None:
    """Adds what the tasks of `workflow` name, and `include`."""
    for task in workflow.tasks:
        _add_task(needs, task, place)
    for pattern in include:
        _add_pattern(needs, pattern, place)


def _add_task(needs: Needs, task: Task, place: Place) -> None:
    base = needs.folder
    if task.cwd and not is_template(task.cwd) and not task.cwd.startswith("/"):
        needs.add_path(f"{task.cwd.rstrip('/')}/", base)
        base = base / task.cwd
    match task.action:
        case Shell(command=command):
            words = _WORDS.split(command)
            for before, word in zip(["", *words], words, strict=False):
                if before == "-m" and re.match(r"[A-Za-z_][\w.]*\Z", word):
                    needs.add_module(word)
                else:
                    needs.add_path(word, base)
        case Python(call=call):
            _add_call(needs, task, call, place)
        case Sql(file=str(file)):
            if not needs.add_path(file, needs.folder):
                known = [str(path.relative_to(needs.folder)) for path in _beside(needs.folder)]
                text = f"there is no file {file} beside the workflow's{nearest(file, known)}"
                field = f"tasks.{task.name}.sql.file"
                needs.problems.append(Problem(text, *place, field))


def _beside(folder: Path) -> Iterator[Path]:
    for count, path in enumerate(walk(folder)):
        if count > 1000:
            return
        yield path


def _add_call(needs: Needs, task: Task, call: str, place: Place) -> None:
    module, _, function = call.partition(":")
    field = f"tasks.{task.name}.python.call"
    if not needs.add_module(module):
        known = [path.stem for path in needs.folder.glob("*.py")]
        hint = nearest(module, known)
        if hint:
            text = f"there is no module `{module}` beside the workflow's file{hint}"
            needs.problems.append(Problem(text, *place, field, repr(call)))
        return
    defined = _defined(needs.folder / Path(*module.split(".")).with_suffix(".py"))
    name = function.partition(".")[0]
    if defined is not None and name not in defined:
        text = f"module `{module}` defines no `{name}`{nearest(name, defined)}"
        needs.problems.append(Problem(text, *place, field, repr(call)))


def _defined(path: Path) -> set[str] | None:
    """Names that a module binds, as far as that can be seen; None when it cannot."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return None
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names.update(alias.asname or alias.name.partition(".")[0] for alias in node.names)
    return None if "*" in names or "__getattr__" in names else names


def _add_pattern(needs: Needs, pattern: str, place: Place) -> None:
    if pattern.startswith("/") or ".." in Path(pattern).parts or not pattern:
        allowed = "a pattern below the folder of the file, such as sql/*.sql"
        problem = Problem("leaves the folder", *place, "include", repr(pattern), allowed)
        needs.problems.append(problem)
        return
    found = False
    for path in sorted(needs.folder.glob(pattern)):
        for file in walk(path) if path.is_dir() else [path]:
            needs.files[file] = None
            found = True
    if not found:
        needs.problems.append(Problem("matches no file", *place, "include", repr(pattern)))
