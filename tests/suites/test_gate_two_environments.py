"""Two virtual environments with different versions of somebody's package, one judge."""

from __future__ import annotations

import json
import sysconfig
import venv
from pathlib import Path

import pytest
from test_gate_end_to_end import CASES, GOOD, MEAN, bench

PURELIB = Path(sysconfig.get_path("purelib"))


def environment(folder: Path, version: str, source: str) -> str:
    """A virtual environment with torch and ``theirs`` of a version; returns its interpreter.

    Torch is reached through a path file, which names this environment's packages without making it
    a site directory: the project itself, installed editable, is not importable there.
    """
    venv.create(folder, symlinks=True)
    (site,) = (folder / "lib").glob("python*/site-packages")
    (site / "torch.pth").write_text(f"{PURELIB}\n")
    package = site / "theirs"
    package.mkdir()
    (package / "__init__.py").write_text(
        f'__version__ = "{version}"\n{source}\nattend = reference.attend\n'
    )
    info = site / f"theirs-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: theirs\nVersion: {version}\n")
    (info / "RECORD").write_text("theirs/__init__.py,,\n")
    return str(folder / "bin" / "python")


@pytest.mark.parametrize(
    ("head_version", "head", "code", "verdict"),
    [("1.1", GOOD, 0, "PASS"), ("1.2", MEAN, 1, "REGRESSION")],
)
def test_versions_of_a_package_are_compared(tmp_path, head_version, head, code, verdict):
    pythons = {
        "base": environment(tmp_path / "before", "1.0", GOOD),
        "head": environment(tmp_path / "after", head_version, head),
    }
    (tmp_path / "cases.jsonl").write_text("".join(json.dumps(case) + "\n" for case in CASES))
    options = [f"--{label}-python={python}" for label, python in pythons.items()]
    options += ["--implementation", "theirs", "--suite", "correctness", "--suite", "work"]
    done = bench(
        tmp_path,
        *("gate", *options, "--cases", "cases.jsonl", "--out", "run", "--threads", "1", "--json"),
    )
    document = json.loads(done.stdout)
    assert (done.returncode, document["verdict"]) == (code, verdict), done.stdout + done.stderr
    ran = {}
    for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines():
        sample = json.loads(line)
        ran[sample["subject"]] = sample["ran"]
    assert ran["base"].startswith("theirs 1.0 ")
    assert ran["head"].startswith(f"theirs {head_version} ")
    header = json.loads((tmp_path / "run" / "run.json").read_text())
    assert {side: header["subjects"][side]["python"] for side in pythons} == pythons
