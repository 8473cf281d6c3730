"""Who is compared with whom, and by which judge: from the command line to sides."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from msa_harness import subjects
from msa_harness.files import alone, os_error
from msa_harness.subjects import Subject, SubjectError
from msa_kernels import IMPLEMENTATIONS
from msa_suites.folders import SUBJECT_ENTRIES, judge_paths
from msa_suites.session import Side

#: Folders of a checkout that hold the judge.
JUDGE_ENTRIES = ("", "kernels", "suites", "harness", "reports")
GATES = "suites/msa_suites/gates.toml"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run measures.

    Attributes:
        sides: ``head``, and ``base`` where two are compared.
        judge: where suites, harness and thresholds come from, for the record.
        gates: text of the gate table.
        judge_paths: the judge's folders that workers import from.
        self_test: base and head are the same code.
    """

    sides: dict[str, Side]
    judge: dict[str, object]
    gates: str
    judge_paths: tuple[Path, ...]
    self_test: bool = False

    @property
    def title(self) -> str:
        """One line for people."""
        head = self.sides["head"].subject.description
        if "base" not in self.sides:
            return f"head: {head}"
        if self.self_test:
            return f"self-test: nothing compared ({head})"
        return f"base: {self.sides['base'].subject.description}; head: {head}"


def here() -> Path:
    """The checkout this judge runs from, or the folder its packages are installed in."""
    import msa_suites

    return Path(msa_suites.__file__).resolve().parents[2]


def find_repository(named: Path | None = None) -> Path:
    """The msa-bench checkout to measure: the named one, else around the current directory or here.

    Raises:
        SubjectError: none of them is a git checkout of msa-bench.
    """
    for start in (named,) if named is not None else (Path.cwd(), here()):
        for folder in (start, *start.parents):
            if (folder / ".git").exists() and (folder / "msa" / "reference.py").exists():
                return folder
    raise SubjectError(
        f"--repo: wanted a git checkout of msa-bench at {named or Path.cwd()}, got none; "
        "to compare anybody's implementation use --implementation with --base-python or --base-path"
    )


def outside(args: argparse.Namespace) -> bool:
    """Whether the subjects are named by environments or paths instead of revisions."""
    names = ("base_python", "head_python", "base_path", "head_path")
    return any(getattr(args, name, None) for name in names)


def plan_gate(args: argparse.Namespace, copies: Path) -> Plan:
    """The two sides of ``msa-bench gate``.

    Args:
        args: parsed options.
        copies: where trees of revisions are unpacked.

    Raises:
        SubjectError: an unknown revision, or both ways of naming subjects at once.
    """
    if outside(args):
        if args.base or args.head:
            raise SubjectError(
                "--base, --head: wanted revisions or (--base-python, --head-python, --base-path, "
                "--head-path), got both"
            )
        return _plan_outside(args)
    repo = find_repository(args.repo)
    base_rev = args.base or subjects.merge_base_with_main(repo)
    with _copying_to(copies):
        base = subjects.from_revision("base", repo, base_rev, copies, entries=SUBJECT_ENTRIES)
        head = subjects.from_revision("head", repo, args.head, copies, entries=SUBJECT_ENTRIES)
    attested = ("msa", "msa_kernels")
    sides = {side.label: Side(side, args.implementation, attested) for side in (base, head)}
    gates = args.gates.read_text() if args.gates else (base.roots[0] / GATES).read_text()
    judge = {"from": args.judged_by or "installed", "commit": args.judged_by or ""}
    return Plan(sides, judge, gates, judge_paths(with_method=False), base.same_code(head))


@contextmanager
def _copying_to(copies: Path) -> Iterator[Path]:
    """The run directory's ``subjects`` for this process alone: two at once would mix their files.

    Raises:
        RunError: a run is going on there, or it cannot be written.
    """
    with alone(copies.parent):
        try:
            yield copies
        except OSError as error:
            raise os_error("copy revisions into", copies, error) from error


def _plan_outside(args: argparse.Namespace) -> Plan:
    sides = {}
    for label in ("base", "head"):
        python = getattr(args, f"{label}_python") or sys.executable
        path = getattr(args, f"{label}_path")
        found = _interpreter(f"--{label}-python", python)
        if path is not None and not Path(path).is_dir():
            raise SubjectError(f"--{label}-path: wanted a directory, got {path}")
        roots = (Path(path).resolve(),) if path is not None else ()
        what = f"{args.implementation} in {python}" + (f" with {path}" if path else "")
        subject = Subject(label, found, roots, _digest_of(found, roots), False, what)
        sides[label] = Side(subject, _placed(args.implementation, roots))
    gates = (args.gates or here() / GATES).read_text()
    same = sides["base"].subject.same_code(sides["head"].subject)
    return Plan(sides, _installed_judge(), gates, judge_paths(with_method=True), same)


def _interpreter(flag: str, python: str) -> str:
    """The absolute path of an interpreter: workers start in a folder of their own."""
    found = shutil.which(python)
    if found is None:
        raise SubjectError(f"{flag}: wanted a Python interpreter, got {python!r}")
    return str(Path(found).absolute())  # not resolved: a virtual environment's is a link


def _digest_of(python: str, roots: tuple[Path, ...]) -> str:
    """No commit is known; the environment's path and the folder stand for it."""
    return " ".join([python, *map(str, roots)])


def plan_alone(args: argparse.Namespace) -> Plan:
    """The one side of ``check``: the code that is installed here."""
    root = here()
    in_checkout = (root / "msa" / "reference.py").exists()
    roots = tuple(root / entry for entry in SUBJECT_ENTRIES) if in_checkout else ()
    revision, dirty = "", False
    if in_checkout and (root / ".git").exists():
        revision, dirty = subjects.resolve_revision(root, "HEAD"), subjects.is_dirty(root)
    what = f"{args.implementation} as installed"
    if revision:
        what = f"working tree at {revision[:10]}" + (", uncommitted changes" if dirty else "")
    roots = (*roots, *_current_folder(args.implementation))
    head = Subject("head", sys.executable, roots, revision, dirty, what)
    gates = args.gates.read_text() if args.gates else own_gates().read_text()
    paths = judge_paths(with_method=True)
    attested = ("msa", "msa_kernels") if in_checkout else ()
    sides = {"head": Side(head, _placed(args.implementation, ()), attested)}
    return Plan(sides, _installed_judge(), gates, paths)


def plan_conformance(args: argparse.Namespace) -> Plan:
    """The one side of ``conformance``: an implementation here, or in another environment."""
    found = _interpreter("--python", args.python or sys.executable)
    if args.path is not None and not Path(args.path).is_dir():
        raise SubjectError(f"--path: wanted a directory, got {args.path}")
    roots = (Path(args.path).resolve(),) if args.path else _current_folder(args.implementation)
    head = Subject("head", found, roots, description=args.implementation)
    side = Side(head, _placed(args.implementation, roots))
    return Plan({"head": side}, _installed_judge(), "", judge_paths(with_method=True))


def _current_folder(implementation: str) -> tuple[Path, ...]:
    """A module may stand in the current directory, as ``python -m`` would find it."""
    return () if implementation in IMPLEMENTATIONS else (Path.cwd(),)


def _placed(implementation: str, roots: tuple[Path, ...]) -> str:
    """``file.py:object`` with the whole path: workers start in a folder of their own.

    Args:
        implementation: as it was named.
        roots: folders of the side; the current one where it has none.

    Raises:
        SubjectError: there is no such file.
    """
    file, colon, rest = implementation.partition(":")
    if not file.endswith(".py"):
        return implementation
    # A side with a folder of its own takes nothing from elsewhere: it would be another side's.
    folders = roots or (Path.cwd(),)
    for folder in folders:
        if (folder / file).is_file():
            return f"{(folder / file).resolve()}{colon}{rest}"
    raise SubjectError(
        f"--implementation: wanted a Python file, got {file}, which is not in "
        f"{', '.join(map(str, folders))}"
    )


def own_gates() -> Path:
    """The judge's own gate table."""
    import msa_suites

    return Path(msa_suites.__file__).resolve().parent / "gates.toml"


def _installed_judge() -> dict[str, object]:
    try:
        version = importlib.metadata.version("msa-bench")
    except importlib.metadata.PackageNotFoundError:
        version = ""
    return {"from": "installed", "version": version}


def hand_over(args: argparse.Namespace, argv: list[str]) -> None:
    """Replace this process by the judge of the base revision, unless it is that already.

    A change must not relax its own gate: suites, thresholds, items and the specification come
    from base. ``--judge here`` keeps the judge that is installed.

    Raises:
        SubjectError: base does not hold a judge.
    """
    if args.judge == "here" or outside(args):
        return
    repo = find_repository(args.repo)
    commit = subjects.resolve_revision(repo, args.base or subjects.merge_base_with_main(repo))
    if args.judged_by:
        return
    mine = here() == repo.resolve() and not subjects.is_dirty(repo)
    if mine and subjects.resolve_revision(repo, "HEAD") == commit:
        args.judged_by = commit
        return
    with _copying_to(args.out / "subjects") as copies:
        tree = subjects.materialise(repo, commit, copies)
    if not (tree / "suites" / "msa_suites" / "cli.py").exists():
        raise SubjectError(
            f"--judge: wanted a base revision with suites, got {commit[:10]} without; "
            "judge with the installed ones: --judge here"
        )
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(str((tree / e).resolve()) for e in JUDGE_ENTRIES),
    }
    command = [sys.executable, "-P", "-m", "msa_suites", *argv]
    command += ["--judged-by", commit, "--repo", str(repo), "--out", str(args.out)]
    # A child, not an exec: Ctrl-C reaches both, and the exit code is the child's.
    raise SystemExit(subprocess.run(command, env=environment, check=False).returncode)
