"""Small automatic changes of the subject's source: where they can be made, and making one.

The operators are the usual ones: a comparison, an operation or a boolean turned into its
neighbour, a constant moved by one, a condition negated, a statement left out, and a few functions
of this field exchanged for their opposites. Left alone are texts, annotations, ``raise``
statements, and constants at the top of a module, which tune speed and change no result.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

#: Method and launcher code: what a change to MSA would touch.
MODULES = (
    "msa.packing",
    "msa.padding",
    "msa.cache",
    "msa.index_branch",
    "msa.layer",
    "msa.retrofit_attention",
    "msa.fast.attention",
    "msa.fast.backward",
    "msa.fast.combining",
    "msa.fast.decoding",
    "msa.fast.entries",
    "msa.fast.gathered",
    "msa.fast.index_loss",
    "msa.fast.lists",
    "msa.fast.pieces",
    "msa.fast.pipeline",
    "msa.fast.scoring",
    "msa.fast.selected",
    "msa.fast.selecting",
    "msa.fast.small",
)

_COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_COMPUTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.Pow: ast.Mult,
}
_NAMED = {
    "amax": "amin",
    "max": "min",
    "min": "max",
    "maximum": "minimum",
    "clamp_min": "clamp_max",
    "clamp_max": "clamp_min",
    "any": "all",
    "all": "any",
    "zeros": "ones",
    "zeros_like": "ones_like",
    "cos": "sin",
    "sin": "cos",
    "exp": "log",
    "exp_": "log_",
    "rsqrt": "sqrt",
    "logsumexp": "amax",
    "triu_": "tril_",
    "tril_": "triu_",
    "cumsum": "cumprod",
}
_SKIPPED = (ast.Raise, ast.JoinedStr, ast.AnnAssign)


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change.

    Attributes:
        module: dotted name.
        number: of the site, in the order of the source.
        line: in the file.
        what: the change, for people.
        source: the text of that line.
    """

    module: str
    number: int
    line: int
    what: str
    source: str

    @property
    def name(self) -> str:
        """A name that stays as long as the module does."""
        return f"{self.module}:{self.line}:{self.number}"


def source_of(module: str) -> Path:
    """The file of a module; nothing but its packages is imported.

    Raises:
        ModuleNotFoundError: there is none.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(module)
    return Path(spec.origin)


def mutants_of(module: str) -> list[Mutant]:
    """Every change that can be made to a module."""
    text = source_of(module).read_text()
    lines = text.splitlines()
    return [
        Mutant(module, number, line, what, lines[line - 1].strip())
        for number, (line, what, _) in enumerate(_changes(ast.parse(text)))
    ]


def mutated(module: str, number: int) -> ast.Module:
    """The syntax tree of a module with one change made.

    Raises:
        ValueError: the module has no such site.
    """
    tree = ast.parse(source_of(module).read_text())
    for position, (_, _, make) in enumerate(_changes(tree)):
        if position == number:
            make()
            return ast.fix_missing_locations(tree)
    raise ValueError(f"mutant: wanted a site of {module}, got number {number}")


class _Change:
    """Sets one field of one node, or one entry of a list in it."""

    def __init__(self, node: ast.AST, field: str, value: object, at: int | None = None) -> None:
        self.node, self.field, self.value, self.at = node, field, value, at

    def __call__(self) -> None:
        if self.at is None:
            setattr(self.node, self.field, self.value)
        else:
            getattr(self.node, self.field)[self.at] = self.value


def _changes(tree: ast.Module) -> Iterator[tuple[int, str, _Change]]:
    """(line, text, change) of every site inside functions, in the order of the source."""
    inner: set[ast.AST] = set()
    for node in ast.walk(tree):  # outer functions come before inner ones
        if isinstance(node, ast.FunctionDef) and node not in inner:
            inner.update(ast.walk(node))
            for statement in node.body:
                yield from _in_node(statement)
            yield from _left_out(node)


def _in_node(node: ast.AST) -> Iterator[tuple[int, str, _Change]]:
    if isinstance(node, _SKIPPED) or _is_text(node):
        return
    yield from _of(node)
    for child in ast.iter_child_nodes(node):
        yield from _in_node(child)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _of(node: ast.AST) -> Iterator[tuple[int, str, _Change]]:
    """Changes of one node itself."""
    line = getattr(node, "lineno", 0)
    if isinstance(node, ast.Compare):
        for at, op in enumerate(node.ops):
            other = _COMPARED[type(op)]()
            yield line, f"{_word(op)} -> {_word(other)}", _Change(node, "ops", other, at)
    elif isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in _COMPUTED:
        new = _COMPUTED[type(node.op)]()
        yield line, f"{_word(node.op)} -> {_word(new)}", _Change(node, "op", new)
    elif isinstance(node, ast.BoolOp):
        swapped = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield line, f"{_word(node.op)} -> {_word(swapped)}", _Change(node, "op", swapped)
    elif isinstance(node, ast.UnaryOp) and not isinstance(node.operand, ast.Constant):
        if isinstance(node.op, ast.USub):
            yield line, "minus left out", _Change(node, "op", ast.UAdd())
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield line, f"{node.value} -> {not node.value}", _Change(node, "value", not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        moved = node.value + 1
        yield line, f"{node.value} -> {moved}", _Change(node, "value", moved)
    elif isinstance(node, ast.Attribute) and node.attr in _NAMED:
        named = _NAMED[node.attr]
        yield line, f".{node.attr} -> .{named}", _Change(node, "attr", named)
    elif isinstance(node, ast.Name) and node.id in ("min", "max"):
        yield line, f"{node.id} -> {_NAMED[node.id]}", _Change(node, "id", _NAMED[node.id])
    elif isinstance(node, ast.If | ast.IfExp | ast.While):
        negated = ast.UnaryOp(ast.Not(), node.test)
        yield line, "condition negated", _Change(node, "test", negated)


def _left_out(node: ast.AST) -> Iterator[tuple[int, str, _Change]]:
    """Calls and assignments to parts of tensors that are left out."""
    for parent in ast.walk(node):
        for field in ("body", "orelse"):
            statements = getattr(parent, field, None)
            if not isinstance(statements, list):
                continue
            for at, one in enumerate(statements):
                called = isinstance(one, ast.Expr) and isinstance(one.value, ast.Call)
                into = isinstance(one, ast.AugAssign) or (
                    isinstance(one, ast.Assign) and isinstance(one.targets[0], ast.Subscript)
                )
                if called or into:
                    text = ast.unparse(one).partition("\n")[0][:60]
                    yield one.lineno, f"left out: {text}", _Change(parent, field, ast.Pass(), at)


def _word(op: ast.AST) -> str:
    return type(op).__name__
