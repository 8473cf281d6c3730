"""Subjects found in real repositories, which stay as they are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from msa_harness import subjects
from msa_harness.environment import capture, incomparable
from msa_harness.subjects import Subject, SubjectError


def git(repo, *arguments):
    names = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(repo), *names, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def repo(tmp_path):
    path = tmp_path / "repo"
    (path / "kernels").mkdir(parents=True)
    git(path, "init", "-b", "main")
    (path / ".gitignore").write_text("build/\n")
    (path / "code.py").write_text("VALUE = 1\n")
    (path / "kernels" / "k.py").write_text("")
    (path / "link.py").symlink_to("code.py")
    git(path, "add", ".")
    git(path, "commit", "-m", "one")
    git(path, "tag", "v1")
    git(path, "checkout", "-b", "feature")
    (path / "code.py").write_text("VALUE = 2\n")
    git(path, "commit", "-am", "two")
    return path


def state(repo):
    return git(repo, "status", "--porcelain=v2", "--branch"), git(repo, "worktree", "list")


def test_revisions_resolve_and_unknown_ones_list_near_names(repo):
    first = subjects.resolve_revision(repo, "v1")
    assert len(first) == 40
    assert subjects.resolve_revision(repo, first[:9]) == first
    assert subjects.merge_base_with_main(repo) == first
    with pytest.raises(SubjectError, match="'featur'; did you mean feature"):
        subjects.resolve_revision(repo, "featur")
    with pytest.raises(SubjectError, match="wanted a commit"):
        subjects.resolve_revision(repo, "--help")
    assert subjects.show(repo, "v1", "code.py") == "VALUE = 1\n"
    with pytest.raises(SubjectError, match=r"none\.py"):
        subjects.show(repo, "v1", "none.py")


def test_places_without_history_are_clear_errors(tmp_path):
    with pytest.raises(SubjectError, match="not a git repository"):
        subjects.resolve_revision(tmp_path, "HEAD")
    lone = tmp_path / "lone"
    lone.mkdir()
    git(lone, "init", "-b", "trunk")
    (lone / "a").write_text("")
    git(lone, "add", ".")
    git(lone, "commit", "-m", "one")
    with pytest.raises(SubjectError, match="main, origin/main"):
        subjects.merge_base_with_main(lone)


def test_a_commit_is_copied_and_the_repository_left_alone(repo, tmp_path):
    before = state(repo)
    base = subjects.from_revision("base", repo, "v1", tmp_path / "out", entries=("", "kernels"))
    assert (base.roots[0] / "code.py").read_text() == "VALUE = 1\n"
    assert base.roots[1].name == "kernels"
    assert (base.roots[0] / "link.py").is_symlink()
    assert not base.dirty
    assert base.description.endswith("(v1)")
    assert subjects.materialise(repo, "v1", tmp_path / "out") == base.roots[0]
    assert state(repo) == before


def test_the_working_tree_is_copied_with_its_uncommitted_changes(repo, tmp_path):
    clean = subjects.from_revision("head", repo, None, tmp_path / "out")
    commit = subjects.from_revision("base", repo, "HEAD", tmp_path / "out")
    assert not clean.dirty
    assert clean.same_code(commit)
    (repo / "code.py").write_text("VALUE = 3\n")
    (repo / "new.py").write_text("")
    (repo / "kernels" / "k.py").unlink()
    (repo / "build").mkdir()
    (repo / "build" / "junk").write_text("")
    before = state(repo)
    head = subjects.from_revision("head", repo, None, tmp_path / "out")
    root = head.roots[0]
    assert head.dirty
    assert not head.same_code(commit)
    assert "uncommitted" in head.description
    assert (root / "code.py").read_text() == "VALUE = 3\n"
    assert (root / "new.py").exists()
    assert not (root / "build").exists()
    assert not (root / "kernels" / "k.py").exists()
    assert state(repo) == before
    (repo / "code.py").write_text("VALUE = 4\n")  # editing goes on
    assert (root / "code.py").read_text() == "VALUE = 3\n"
    later = subjects.from_revision("head", repo, None, tmp_path / "out")
    assert later.digest != head.digest
    assert later.to_dict() != head.to_dict()


def test_a_directory_is_a_checkout_where_no_revision_has_its_name(repo, tmp_path):
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "code.py").write_text("")
    one = subjects.from_revision("base", repo, str(plain), tmp_path / "out")
    assert one.roots == (plain,)
    assert "not under git" in one.description
    other = subjects.from_revision("base", repo, str(repo), tmp_path / "out")
    assert other.revision == subjects.resolve_revision(repo, "HEAD")
    with pytest.raises(SubjectError, match="no directory of that name"):
        subjects.from_revision("base", repo, "nowhere", tmp_path / "out")
    with pytest.raises(SubjectError, match=r"wanted directories, got none at .*lib"):
        subjects.from_revision("base", repo, "v1", tmp_path / "out", entries=("lib",))


def test_same_code_needs_the_same_python():
    one = Subject("base", revision="a")
    assert one.same_code(Subject("head", revision="a"))
    assert not one.same_code(Subject("head", revision="a", python="/other"))
    assert not one.same_code(Subject("head", revision="a", digest="x"))
    assert not Subject("base", roots=(Path("a"),)).same_code(Subject("head", roots=(Path("b"),)))


def test_the_environment_is_recorded_without_heavy_imports():
    record = capture(threads=2, commit="1a2b3c", dirty=True).to_dict()
    assert (record["commit"], record["dirty"]) == ("1a2b3c", True)
    assert record["device_class"] in ("cpu", "shared-cpu")
    assert record["packages"]["torch"]
    assert capture(threads=1, device="NVIDIA H100").device_class == "NVIDIA H100"
    assert incomparable(record, record) == []
    assert incomparable(record, {**record, "threads": 1}) == ["threads: 2 and 1"]
    packages = {**record["packages"], "torch": "1.0"}
    (differs,) = incomparable(record, {**record, "packages": packages})
    assert differs.startswith("torch: ")
    code = "import sys, msa_harness.environment; print([m for m in sys.modules if m in "
    code += "('torch', 'numpy', 'scipy')])"
    harness = Path(subjects.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": harness}
    )
    assert done.stdout.strip() == "[]"
