"""Templates that need Jinja2: reading, checking, compiling. Imported only when such a text is met.

Rule: a small, closed language. Expressions, `{% if %}`, `{% for %}`, `{% raw %}`, the filters in
FILTERS, the methods in METHODS; nothing else can be named, so there is no way out to Python's
objects. What a reference means and how a value is written as text is in `template`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from types import BuiltinFunctionType, FunctionType, GeneratorType, MethodType
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from grampus.model.quoting import Context, ShellText, UnquotableError, quote
from grampus.model.spelling import nearest
from grampus.model.template import (
    OUTPUT_LIMIT,
    ROOTS,
    Raw,
    References,
    TemplateError,
    check_path,
    to_text,
)

_STATEMENTS = (nodes.Output, nodes.If, nodes.For)
#: Names that Jinja gives a meaning of its own.
_HIDDEN = frozenset({"self", "super", "caller", "varargs", "kwargs"})
_REPEAT_LIMIT = 10_000
FILTERS = frozenset(
    "abs capitalize count d default dictsort first float int items join last length list lower map"
    " max min raw reject rejectattr replace reverse round select selectattr sort string sum title"
    " tojson trim truncate unique upper urlencode wordcount".split()
)
METHODS: dict[type, frozenset[str]] = {
    dict: frozenset({"get", "items", "keys", "values"}),
    list: frozenset({"count", "index"}),
    str: frozenset(
        "capitalize casefold count endswith find index isalnum isalpha isdigit islower isupper join"
        " lower lstrip partition removeprefix removesuffix rfind rpartition rsplit rstrip split"
        " splitlines startswith strip swapcase title upper".split()
    ),
}


def _bounded(size: int) -> None:
    if size > OUTPUT_LIMIT:
        raise TemplateError(f"the text becomes longer than {OUTPUT_LIMIT} characters")


def _replace(value: object, old: str, new: str) -> str:
    text = to_text(value)
    _bounded(len(text) + text.count(old) * len(new))
    return text.replace(old, new)


def _join(values: Iterable[object], separator: str = "", attribute: str | None = None) -> str:
    parts = [to_text(v if attribute is None else _field(v, attribute)) for v in values]
    _bounded(sum(map(len, parts)) + len(parts) * len(separator))
    return separator.join(parts)


def _field(value: Any, name: str) -> Any:
    try:
        return value[name]
    except (TypeError, LookupError) as error:
        raise TemplateError(f"there is no field `{name}` to join") from error


def _to_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


class _Sandbox(ImmutableSandboxedEnvironment):
    """Fields before methods, methods from a list, products of bounded size."""

    intercepted_binops = frozenset({"*", "**", "%", "+"})

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, Mapping) and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)

    def wrap_str_format(self, value: Any) -> None:
        """`str.format` is not for templates; the base class would allow it before asking."""

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, jinja2.runtime.LoopContext):
            return not attr.startswith("_")
        return any(isinstance(obj, kind) and attr in names for kind, names in METHODS.items())

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        numbers = isinstance(left, int | float) and isinstance(right, int | float)
        if operator == "**" and numbers and (abs(right) > 1000 or abs(left) > 1e9):
            raise TemplateError("the power is too large")
        if operator == "*" and not numbers:
            length, times = (left, right) if isinstance(right, int) else (right, left)
            if isinstance(length, str | list | tuple) and isinstance(times, int):
                _bounded(len(length) * times)
        if operator == "+" and isinstance(left, str | list) and isinstance(right, str | list):
            _bounded(len(left) + len(right))
        if operator == "%" and not numbers:
            raise TemplateError("`%` is for numbers here; put texts together with `~`")
        return super().call_binop(context, operator, left, right)


def _range(*args: int) -> list[int]:
    values = range(*args)
    if len(values) > _REPEAT_LIMIT:
        raise TemplateError(f"range() gives at most {_REPEAT_LIMIT} numbers")
    return list(values)


def _quoter(context: Context) -> Callable[[object], Raw]:
    def filter_value(value: object) -> Raw:
        return value if isinstance(value, Raw) else Raw(quote(to_text(native(value)), context))

    return filter_value


def _environment() -> _Sandbox:
    environment = _Sandbox(
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        optimized=False,
        cache_size=0,
        finalize=lambda value: to_text(native(value)),
    )
    environment.globals = {"range": _range}
    filters = {name: environment.filters[name] for name in FILTERS if name in environment.filters}
    contexts: tuple[Context, ...] = ("word", "double", "single", "number")
    environment.filters = {
        **filters,
        "raw": lambda value: Raw(to_text(native(value))),
        "replace": _replace,
        "join": _join,
        "tojson": lambda value: _to_json(native(value)),
        **{f"quote {context}": _quoter(context) for context in contexts},
    }
    return environment


_ENVIRONMENT = _environment()


def native(value: Any) -> Any:
    """A value as tasks see it: lazy ones become lists, an undefined one is an error."""
    if isinstance(value, jinja2.Undefined):
        str(value)  # StrictUndefined explains itself
    if isinstance(value, BuiltinFunctionType | FunctionType | MethodType):
        raise TemplateError(f"`{value.__name__}` has to be called: {value.__name__}()")
    if isinstance(value, GeneratorType) or type(value).__name__ in ("dict_items", "dict_keys"):
        return list(value)
    if type(value).__name__ == "dict_values":
        return list(value)
    return value


def _fail(message: str, node: nodes.Node) -> TemplateError:
    return TemplateError(message, line=node.lineno)


def parse(text: str) -> nodes.Template:
    """The checked tree of `text`. Raises TemplateError for what the language does not have."""
    try:
        tree = _ENVIRONMENT.parse(text)
    except jinja2.TemplateSyntaxError as error:
        reason = error.message or "syntax error"
        if "comment tag" in reason:
            reason += "; `{#` begins a comment: write {% raw %}{#{% endraw %} for the text"
        raise TemplateError(reason, line=error.lineno) from None
    except RecursionError:
        raise TemplateError("the expression is nested too deeply") from None
    for node in tree.find_all(nodes.Node):
        if isinstance(node, nodes.Stmt) and not isinstance(node, _STATEMENTS):
            kind = type(node).__name__.lower()
            raise _fail(f"`{kind}` is not part of templates: only if, for and raw are", node)
        if isinstance(node, nodes.Filter) and node.name not in FILTERS:
            hint = nearest(node.name, FILTERS)
            raise _fail(f"there is no filter `{node.name}`{hint}", node)
        if isinstance(node, nodes.Test) and node.name not in _ENVIRONMENT.tests:
            raise _fail(f"there is no test `{node.name}`", node)
        if isinstance(node, nodes.Name) and node.name in _HIDDEN:
            raise _fail(f"unknown name `{node.name}`; known are {', '.join(ROOTS)}", node)
        if isinstance(node, nodes.Name) and node.ctx == "store" and node.name in ROOTS:
            raise _fail(f"`{node.name}` cannot be the name of a loop variable", node)
    return tree


def references(text: str) -> References:
    """What `text` mentions, see `template.references`."""
    found: tuple[set[str], set[str]] = (set(), set())
    _collect(parse(text), frozenset({"range", "loop"}), found)
    return References(tuple(sorted(found[0])), tuple(sorted(found[1])))


def _collect(node: nodes.Node, known: frozenset[str], found: tuple[set[str], set[str]]) -> None:
    if isinstance(node, nodes.For):
        _collect(node.iter, known, found)
        names = {
            n.name
            for n in [node.target, *node.target.find_all(nodes.Name)]
            if isinstance(n, nodes.Name)
        }
        inner = known | names
        for child in [*([node.test] if node.test else []), *node.body]:
            _collect(child, inner, found)
        for child in node.else_:
            _collect(child, known, found)
        return
    path = _path(node)
    if path is not None:
        root = path[0]
        if root in known:
            return
        if root not in ROOTS:
            hint = nearest(str(root), [*ROOTS, *known])
            raise _fail(f"unknown name `{root}`{hint}; known are {', '.join(ROOTS)}", node)
        try:
            check_path(path)
        except TemplateError as error:
            raise _fail(error.message, node) from None
        if root in ("params", "tasks") and len(path) > 1:
            found[0 if root == "params" else 1].add(str(path[1]))
        return
    if isinstance(node, nodes.Getitem) and isinstance(node.node, nodes.Name):
        if node.node.name in ("params", "tasks", "tick", "run") and node.node.name not in known:
            raise _fail(f"write the name after `{node.node.name}.`: it cannot be computed", node)
    for child in node.iter_child_nodes():
        _collect(child, known, found)


def _path(node: nodes.Node) -> tuple[str | int, ...] | None:
    """`params.a["b"][0]` as ("params", "a", "b", 0); None for any other expression."""
    if isinstance(node, nodes.Name):
        return (node.name,)
    if isinstance(node, nodes.Getattr):
        head, key = _path(node.node), node.attr
    elif isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
        head, key = _path(node.node), node.arg.value
    else:
        return None
    return None if head is None else (*head, key)


def check_quoting(text: str) -> None:
    """Raises TemplateError where a value in a shell command cannot be quoted."""
    _quoted(parse(text))


def unmarked_lines(text: str) -> list[int]:
    """Lines where an expression is inserted that does not end with `| raw`."""
    return [
        child.lineno
        for output in parse(text).find_all(nodes.Output)
        for child in output.nodes
        if not isinstance(child, nodes.TemplateData)
        and not (isinstance(child, nodes.Filter) and child.name == "raw")
    ]


def _quoted(tree: nodes.Template) -> nodes.Template:
    """Every inserted expression gets the filter that quotes it for its place in the command."""
    _walk_shell(tree.body, ShellText())
    tree.set_environment(_ENVIRONMENT)
    return tree


def _walk_shell(body: list[nodes.Node], shell: ShellText) -> None:
    for node in body:
        try:
            if isinstance(node, nodes.Output):
                _walk_output(node, shell)
            elif isinstance(node, nodes.If):
                start = shell.copy()
                _walk_shell(node.body, shell)
                for branch in node.elif_:
                    other = start.copy()
                    _walk_shell(branch.body, other)
                    shell.join(other)
                other = start.copy()
                _walk_shell(node.else_, other)
                shell.join(other)
            elif isinstance(node, nodes.For):
                start = shell.copy()
                _walk_shell(node.body, shell)
                shell.join(start)
                other = start.copy()
                _walk_shell(node.else_, other)
                shell.join(other)
        except UnquotableError as error:
            raise _fail(str(error), node) from None


def _walk_output(node: nodes.Output, shell: ShellText) -> None:
    for index, child in enumerate(node.nodes):
        if isinstance(child, nodes.TemplateData):
            shell.feed(child.data)
        elif isinstance(child, nodes.Filter) and child.name == "raw":
            shell.insert_raw()
        else:
            name = f"quote {shell.insert()}"
            wrapped = nodes.Filter(child, name, [], [], None, None, lineno=child.lineno)
            node.nodes[index] = wrapped


@lru_cache(maxsize=256)
def _compiled(text: str, quoted: bool) -> jinja2.Template:
    tree = parse(text)
    if quoted:
        tree = _quoted(tree)
    return _ENVIRONMENT.from_string(tree)


@lru_cache(maxsize=256)
def _expression(text: str) -> Callable[..., Any] | None:
    """The only expression of `text`, or None when there is text around it."""
    body = parse(text).body
    if len(body) != 1 or not isinstance(body[0], nodes.Output) or len(body[0].nodes) != 1:
        return None
    if isinstance(body[0].nodes[0], nodes.TemplateData) or not text.startswith("{{"):
        return None
    inner = text[2:].rstrip()[:-2].removeprefix("-").removesuffix("-")
    return _ENVIRONMENT.compile_expression(inner, undefined_to_none=False)


def render(text: str, scope: Mapping[str, Any], quote: bool) -> str:
    """`text` with its values. Raises TemplateError."""
    parts, size = [], 0
    try:
        for part in _compiled(text, quote).generate(scope):
            size += len(part)
            _bounded(size)
            parts.append(part)
    except Exception as error:
        raise _explain(error) from error
    return "".join(parts)


def evaluate(text: str, scope: Mapping[str, Any]) -> Any:
    """The value of the only expression of `text`, or its text when there is more than that."""
    expression = _expression(text)
    if expression is None:
        return render(text, scope, False)
    try:
        value = native(expression(scope))
    except Exception as error:
        raise _explain(error) from error
    return str.__str__(value) if isinstance(value, str) else value


def _explain(error: Exception) -> TemplateError:
    """An author's expression may fail in any way that Python knows."""
    if isinstance(error, TemplateError):
        return error
    if isinstance(error, jinja2.TemplateError):
        return TemplateError(error.message or type(error).__name__)
    return TemplateError(f"{type(error).__name__}: {error}")
