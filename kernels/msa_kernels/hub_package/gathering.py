"""Modules of this project as a package that needs nothing of it: what they import, and how.

A module takes along every module that it imports, and the packages above those; the two at the top
are left empty, for they gather what a kernel does not need. ``from msa.packing import segments``
becomes ``from ...msa.packing import segments``, with as many dots as lead up to the new root;
nothing else in a file changes.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

#: Packages whose modules are taken along.
TOPS = ("msa", "msa_kernels")
#: What else a kernel of the Hub may import, beside the standard library.
ALLOWED = ("torch", "triton")


def gather(start: str) -> dict[str, str]:
    """The files of a package whose ``__init__.py`` is the module ``start``.

    Args:
        start: dotted name.

    Returns:
        path in the package -> text.

    Raises:
        ValueError: an import that cannot be made relative, or of what no kernel may import.
    """
    files = {f"{top}/__init__.py": "" for top in TOPS}
    todo, known = [start], {start, *TOPS}
    while todo:
        name = todo.pop()
        source = _file_of(name)
        if source is None:
            raise ValueError(f"{name}: wanted a module of {' or '.join(TOPS)}, got none")
        place = "__init__.py" if name == start else _place(name, source)
        files[place], imported = _made_relative(source.read_text(encoding="utf-8"), name, place)
        new = {above for each in imported for above in _upwards(each)} - known
        known |= new
        todo += sorted(new)
    return dict(sorted(files.items()))


def _made_relative(text: str, name: str, place: str) -> tuple[str, set[str]]:
    """The text with relative imports, and the modules of ours that it imports."""
    lines = text.splitlines(keepends=True)
    dots = "." * len(PurePosixPath(place).parts)
    imported: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                _require_allowed(alias.name, f"{name}, line {node.lineno}")
        elif isinstance(node, ast.ImportFrom):
            where = f"{name}, line {node.lineno}"
            module = node.module or ""
            if node.level or module.partition(".")[0] not in TOPS:
                _require_allowed("." * node.level + module, where)
                continue
            imported |= set(_modules_of(module, [alias.name for alias in node.names], where))
            # Only the name of the module changes, so comments and lines stay where they are.
            line, old = lines[node.lineno - 1], f"from {module} import"
            if not line[node.col_offset :].startswith(old):
                raise ValueError(f"{where}: wanted `{old}` on one line, got {line.strip()!r}")
            new = f"from {dots}{module} import"
            lines[node.lineno - 1] = line.replace(old, new, 1)
    return "".join(lines), imported


def _modules_of(module: str, names: list[str], where: str) -> Iterator[str]:
    """The modules of ours that one import takes: itself, and names that are modules."""
    inner = [f"{module}.{name}" for name in names if _file_of(f"{module}.{name}")]
    if module not in TOPS:
        yield module
    elif len(inner) < len(names):
        raise ValueError(f"{where}: wanted modules of {module}, which is empty in a package")
    yield from inner


def _require_allowed(module: str, where: str) -> None:
    top = module.partition(".")[0]
    if top in TOPS or not top:
        raise ValueError(f"{where}: wanted `from package.module import name`, got {module}")
    if top not in (*ALLOWED, *sys.stdlib_module_names):
        raise ValueError(
            f"{where}: wanted the standard library, {' or '.join(ALLOWED)}, all that a kernel of "
            f"the Hub may import, got {module}"
        )


def _upwards(name: str) -> Iterator[str]:
    """The module and the packages above it."""
    while name:
        yield name
        name = name.rpartition(".")[0]


def _file_of(name: str) -> Path | None:
    """Where a module of ours stands, without importing it."""
    top, *rest = name.split(".")
    spec = find_spec(top)
    if spec is None or spec.origin is None:
        return None
    stem = Path(spec.origin).parent.joinpath(*rest)
    files = (stem / "__init__.py", stem.with_name(f"{stem.name}.py"))
    return next((file for file in files if file.is_file()), None)


def _place(name: str, file: Path) -> str:
    path = name.replace(".", "/")
    return f"{path}/__init__.py" if file.name == "__init__.py" else f"{path}.py"
