"""The package for the Hub: its layout, its imports, and the command that writes it."""

from __future__ import annotations

import ast
import base64
import hashlib
import json
import re
import sys

import pytest

from msa_kernels.hub_package import __main__ as command
from msa_kernels.hub_package import gathering, write_package

BUILDS = ("torch-cpu", "torch-cuda")


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    out = tmp_path_factory.mktemp("hub") / "package"
    write_package(out)
    return out


def contents(folder):
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and "__pycache__" not in file.parts
    }


def test_the_same_sources_give_the_same_bytes(package, tmp_path):
    write_package(tmp_path / "again")
    assert contents(tmp_path / "again") == contents(package)
    # Over itself, with what an import left behind and a module that is gone.
    stale = tmp_path / "again" / "build" / "torch-cpu" / "stale.py"
    stale.write_text("")
    write_package(tmp_path / "again")
    assert contents(tmp_path / "again") == contents(package)


class TestLayout:
    """What the Hub's documentation and its loader want of a kernel."""

    def test_folders_and_metadata(self, package):
        assert {path.name for path in package.iterdir()} == {"README.md", "build"}
        assert {path.name for path in (package / "build").iterdir()} == set(BUILDS)
        ids = set()
        for build in BUILDS:
            files = contents(package / "build" / build)
            record = json.loads(files.pop("metadata.json"))
            assert re.fullmatch(r"[a-z][-a-z0-9]*[a-z0-9]", record["name"])
            assert record["id"].isidentifier()
            assert record["version"] == 0
            assert record["license"] == "MIT"
            assert record["python-depends"] == []
            assert record["backend"] == {"type": build.removeprefix("torch-")}
            assert record["digest"]["algorithm"] == "sha256"
            assert record["digest"]["files"] == {
                path: base64.b64encode(hashlib.sha256(data).digest()).decode()
                for path, data in files.items()
            }
            assert "__init__.py" in files
            assert f"{record['name'].replace('-', '_')}/__init__.py" in files
            assert files["LICENSE"].startswith(b"MIT License\n")
            ids.add(record["id"])
        assert len(ids) == len(BUILDS), "modules of two builds would be taken for each other's"

    def test_the_card(self, package):
        card = (package / "README.md").read_text()
        assert card.startswith("---\nlibrary_name: kernels\nlicense: mit\n")
        assert "{" not in card

    def test_imports_are_relative_or_of_what_is_allowed(self, package):
        """Read here apart from the exporter, which refuses the rest too."""
        allowed = {"torch", "triton", *sys.stdlib_module_names}
        for path, data in contents(package / "build" / "torch-cpu").items():
            for node in ast.walk(ast.parse(data)) if path.endswith(".py") else ():
                if isinstance(node, ast.Import):
                    assert {a.name.partition(".")[0] for a in node.names} <= allowed, path
                if isinstance(node, ast.ImportFrom) and not node.level:
                    assert node.module.partition(".")[0] in allowed, path

    def test_another_name_and_version(self, tmp_path):
        write_package(tmp_path, name="our-kernels", version=3)
        record = json.loads((tmp_path / "build/torch-cpu/metadata.json").read_text())
        assert (record["name"], record["version"]) == ("our-kernels", 3)
        assert record["id"].startswith("_our_kernels_cpu_")
        assert (tmp_path / "build/torch-cpu/our_kernels/__init__.py").is_file()


class TestRewriting:
    def test_only_the_name_of_the_module_changes(self):
        text = (
            "from msa.packing import (  # where it stands\n    segments,\n)\n"
            "def f():\n    from msa import checks; import torch.nn\n"
        )
        new, imported = gathering._made_relative(text, "msa.fast.lists", "msa/fast/lists.py")
        assert new == text.replace("from msa", "from ...msa")
        assert imported == {"msa.packing", "msa.checks"}

    @pytest.mark.parametrize(
        ("line", "words"),
        [
            ("import numpy as np", r"^msa.x, line 1: wanted the standard library, torch or triton"),
            ("from scipy.stats import t", r"all that a kernel of the Hub may import, got scipy"),
            ("import msa.packing", r"wanted `from package.module import name`, got msa.packing"),
            (
                "from .packing import segments",
                r"wanted `from package.module import name`, got .pac",
            ),
            ("from msa import MSAConfig", r"wanted modules of msa, which is empty in a package"),
            ("from msa  import checks", r"wanted `from msa import` on one line"),
        ],
    )
    def test_what_cannot_be_rewritten(self, line, words):
        with pytest.raises(ValueError, match=words):
            gathering._made_relative(f"{line}\n", "msa.x", "msa/x.py")

    def test_a_module_that_is_not_there(self):
        with pytest.raises(ValueError, match=r"^msa.nothing: wanted a module of msa or msa_kernel"):
            gathering.gather("msa.nothing")


class TestCommand:
    def test_it_says_how_to_load_what_it_wrote(self, tmp_path, capsys):
        assert command.main(["--out", str(tmp_path / "new")]) == 0
        assert "kernels.get_local_kernel(Path(" in capsys.readouterr().out

    def test_a_foreign_folder_stays_as_it_is(self, tmp_path, capsys):
        (tmp_path / "build").mkdir()
        (tmp_path / "build" / "theirs.txt").write_text("theirs")
        (tmp_path / "README.md").write_text("# theirs")
        assert command.main(["--out", str(tmp_path)]) == 2
        assert re.search(
            r"out: wanted a new or empty folder, or one that was written here, "
            r"got .* with README.md, build\n$",
            capsys.readouterr().err,
        )
        assert set(contents(tmp_path)) == {"build/theirs.txt", "README.md"}

    def test_another_build_beside_ours_stays_too(self, tmp_path, capsys):
        write_package(tmp_path)
        (tmp_path / "build" / "torch-rocm").mkdir()
        assert command.main(["--out", str(tmp_path)]) == 2
        assert "out: wanted a new or empty folder" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("--name", "our_kernels"), "name: wanted small letters, digits and dashes"),
            (("--name", "msa-kernels"), "not msa or msa_kernels, got 'msa-kernels'"),
            (("--version", "-1"), "version: wanted 0 or more, got -1"),
        ],
    )
    def test_what_the_hub_does_not_take(self, tmp_path, capsys, arguments, words):
        assert command.main(["--out", str(tmp_path / "new"), *arguments]) == 2
        assert words in capsys.readouterr().err
        assert not (tmp_path / "new").exists()

    def test_a_file_is_no_folder(self, tmp_path, capsys):
        (tmp_path / "file").write_text("")
        assert command.main(["--out", str(tmp_path / "file")]) == 2
        assert "out: wanted a folder, got the file" in capsys.readouterr().err
