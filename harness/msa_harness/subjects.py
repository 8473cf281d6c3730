"""Who is measured: revisions, working trees and Python environments, found without touching git.

Trees are copied (`git archive`, or the files git knows and does not ignore) into a directory of the
run; the user's repository, its index and its work trees stay as they are.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

MAIN = ("main", "origin/main", "master", "origin/master")


class SubjectError(ValueError):
    """A subject cannot be found or copied: a usage error."""


@dataclass(frozen=True, slots=True)
class Subject:
    """One of the two things compared.

    Attributes:
        label: "base" or "head".
        python: Interpreter that runs it.
        roots: Import path entries with its code, in order; empty for what python has installed.
        revision: Commit it came from; empty where it has none.
        dirty: Whether it differs from that commit.
        description: For people: "working tree at 1a2b3c4d, with uncommitted changes".
        digest: Hash of the copied files of a dirty tree; empty otherwise.
    """

    label: str
    python: str = sys.executable
    roots: tuple[Path, ...] = ()
    revision: str = ""
    dirty: bool = False
    description: str = ""
    digest: str = ""

    def to_dict(self) -> dict[str, object]:
        """Plain values for `run.json`; equal for equal subjects, wherever the copy lies."""
        return {
            "label": self.label,
            "python": self.python,
            "revision": self.revision,
            "dirty": self.dirty,
            "description": self.description,
            "digest": self.digest,
        }

    def same_code(self, other: Subject) -> bool:
        """Whether both are the same known code: a self-test, nothing is compared."""
        if self.python != other.python:
            return False
        if not self.revision and not other.revision:
            return bool(self.roots == other.roots)
        return (self.revision, self.digest) == (other.revision, other.digest)


def _git(repo: Path, *arguments: str) -> bytes:
    try:
        done = subprocess.run(
            ["git", "-C", str(repo), *arguments], capture_output=True, check=True, env=_outside()
        )
    except FileNotFoundError as error:
        raise SubjectError("wanted git on the PATH, got none") from error
    except subprocess.CalledProcessError as error:
        text = error.stderr.decode(errors="replace").strip()
        raise SubjectError(f"git {' '.join(arguments[:2])} in {repo}: {text}") from error
    return done.stdout


def _outside() -> dict[str, str]:
    """The environment without git's own names: a hook would point them at its repository."""
    return {name: text for name, text in os.environ.items() if not name.startswith("GIT_")}


def _line(repo: Path, *arguments: str) -> str:
    return _git(repo, *arguments).decode().strip()


def resolve_revision(repo: Path, rev: str) -> str:
    """The full hash of a commit.

    Raises:
        SubjectError: No such revision (near branches and tags are listed), or no repository.
    """
    _line(repo, "rev-parse", "--git-dir")
    try:
        return _line(
            repo, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{rev}^{{commit}}"
        )
    except SubjectError as error:
        names = _line(repo, "for-each-ref", "--format=%(refname:short)").split()
        near = get_close_matches(rev, names, n=3)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise SubjectError(f"revision: wanted a commit of {repo}, got {rev!r}{hint}") from error


def merge_base_with_main(repo: Path, head: str = "HEAD") -> str:
    """The commit where `head` left main.

    Raises:
        SubjectError: There is no main branch, or no common commit (a shallow clone, say).
    """
    commit = resolve_revision(repo, head)
    for name in MAIN:
        try:
            return _line(repo, "merge-base", resolve_revision(repo, name), commit)
        except SubjectError:
            continue
    raise SubjectError(
        f"{repo}: wanted a commit that {head} shares with one of {', '.join(MAIN)}, got none; "
        "name the base, or fetch the history"
    )


def is_dirty(repo: Path, *, besides: Sequence[Path] = ()) -> bool:
    """Whether the working tree differs from its commit, untracked files included.

    Args:
        repo: a checkout.
        besides: files and folders inside it that may differ, absolute.
    """
    others = [f":(exclude){path.relative_to(repo)}" for path in besides]
    paths = ["--", ".", *others] if others else []
    return bool(_git(repo, "status", "--porcelain", "--untracked-files=normal", *paths))


def show(repo: Path, rev: str, path: str) -> str:
    """The text of a file as a revision has it.

    Raises:
        SubjectError: The revision or the file does not exist.
    """
    return _git(repo, "show", f"{resolve_revision(repo, rev)}:{path}").decode()


def materialise(repo: Path, rev: str, dest: Path) -> Path:
    """Copy the files of a commit into `dest/<commit>`, once.

    Returns:
        The directory with the files.
    """
    commit = resolve_revision(repo, rev)
    target = dest / commit
    if target.is_dir():
        return target
    archive = _git(repo, "archive", "--format=tar", commit)
    partial = _emptied(dest / f".{commit}.partial")
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(partial, filter="data")
    partial.rename(target)
    return target


def snapshot(repo: Path, dest: Path) -> tuple[Path, str]:
    """Copy the working tree: tracked and untracked files, uncommitted edits included.

    Ignored files are left out. The copy is what is measured, so editing goes on undisturbed.

    Returns:
        The directory with the files, and the hash of their names and contents.
    """
    top = Path(_line(repo, "rev-parse", "--show-toplevel"))
    listed = _git(top, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    digest = hashlib.sha256()
    partial = _emptied(dest / ".worktree.partial")
    for name in sorted(filter(None, listed.decode().split("\0"))):
        source, target = top / name, partial / name
        if not source.is_symlink() and not source.is_file():
            continue  # deleted, or a submodule
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target, follow_symlinks=False)
        data = str(target.readlink()).encode() if target.is_symlink() else target.read_bytes()
        digest.update(f"{name}\0{len(data)}\0".encode() + data)
    target = dest / f"worktree-{digest.hexdigest()[:16]}"
    if target.is_dir():
        shutil.rmtree(partial)
    else:
        partial.rename(target)
    return target, digest.hexdigest()


def _emptied(path: Path) -> Path:
    if path.exists():
        shutil.rmtree(path)
    path.mkdir(parents=True)
    return path


def from_revision(
    label: str,
    repo: Path,
    rev: str | None,
    dest: Path,
    *,
    entries: Sequence[str] = ("",),
    python: str = sys.executable,
) -> Subject:
    """A subject from a commit, from the working tree, or from the path of another checkout.

    Args:
        label: "base" or "head".
        repo: The repository.
        rev: Revision; None for the working tree; or a directory, which is taken for a checkout
            where no revision has that name.
        dest: Where copies go.
        entries: Directories below the tree that go on the import path.
        python: Interpreter.

    Raises:
        SubjectError: `rev` is neither a revision nor a directory, or an entry is missing.
    """
    if rev is None:
        return _from_tree(label, repo, dest, entries, python)
    try:
        commit = resolve_revision(repo, rev)
    except SubjectError as error:
        path = Path(rev).expanduser()
        if not path.is_dir():
            raise SubjectError(f"{error}; and there is no directory of that name") from error
        return _from_tree(label, path, dest, entries, python)
    tree = materialise(repo, commit, dest)
    what = f"commit {commit[:10]}" + (f" ({rev})" if not commit.startswith(rev) else "")
    return Subject(label, python, _roots(tree, entries), commit, False, what)


def _from_tree(label: str, path: Path, dest: Path, entries: Sequence[str], python: str) -> Subject:
    try:
        top = Path(_line(path, "rev-parse", "--show-toplevel"))
        commit = resolve_revision(path, "HEAD")
    except SubjectError:
        what = f"directory {path}, not under git"
        return Subject(label, python, _roots(path.resolve(), entries), "", True, what)
    dirty = is_dirty(top)
    tree, digest = snapshot(top, dest)
    what = f"working tree at {commit[:10]}" + (", with uncommitted changes" if dirty else "")
    roots = _roots(tree, entries)
    return Subject(label, python, roots, commit, dirty, what, digest if dirty else "")


def _roots(tree: Path, entries: Sequence[str]) -> tuple[Path, ...]:
    roots = tuple(tree / entry if entry else tree for entry in entries)
    if missing := [str(root) for root in roots if not root.is_dir()]:
        raise SubjectError(f"import path: wanted directories, got none at {', '.join(missing)}")
    return roots
