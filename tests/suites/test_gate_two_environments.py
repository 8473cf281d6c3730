"""Two virtual environments with different versions of somebody's package, one judge."""

from __future__ import annotations

import json
import platform
import sysconfig
import venv
from pathlib import Path

import pytest
from test_gate_end_to_end import CASES, GOOD, MEAN, bench

pytestmark = pytest.mark.whole

SHIPPED = Path(__file__).parents[2] / "suites" / "msa_suites" / "gates.toml"
PURELIB = Path(sysconfig.get_path("purelib"))


def plant(folder: Path, name: str, version: str) -> None:
    """The metadata of a distribution that is not there."""
    (site,) = (folder / "lib").glob("python*/site-packages")
    info = site / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


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
    plant(folder, "theirs", version)
    (site / f"theirs-{version}.dist-info" / "RECORD").write_text("theirs/__init__.py,,\n")
    return str(folder / "bin" / "python")


@pytest.mark.parametrize(
    ("head_version", "head", "code", "verdict"),
    [
        pytest.param("1.1", GOOD, 0, "PASS", marks=pytest.mark.slow),
        ("1.2", MEAN, 1, "REGRESSION"),
    ],
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


def timed_gate(folder: Path, triton: tuple[str, str], *more: str):
    """A speed gate between two environments, which have two versions of triton."""
    options = []
    for side, version in zip(("base", "head"), triton, strict=True):
        if not (folder / side).exists():
            environment(folder / side, "1.0", GOOD)
            plant(folder / side, "triton", version)
        options.append(f"--{side}-python={folder / side / 'bin' / 'python'}")
    (folder / "cases.jsonl").write_text("".join(json.dumps(case) + "\n" for case in CASES))
    gates = SHIPPED.read_text().replace("\npairs = 8", "\npairs = 2")
    gates = gates.replace("max_pairs = 24", "max_pairs = 2")
    gates = gates.replace("margin = 0.10\nconfidence = 0.99", "margin = 0.9\nconfidence = 0.99")
    (folder / "gates.toml").write_text(gates)
    options += ["--implementation", "theirs", "--suite", "speed", "--gates", "gates.toml"]
    options += ["--cases", "cases.jsonl", "--out", "run", "--threads", "1", "--json", *more]
    return bench(folder, "gate", *options)


def samples_of(folder: Path) -> list[dict[str, object]]:
    lines = (folder / "run" / "samples.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.slow
def test_different_versions_are_invalid_and_nothing_is_timed(tmp_path):
    done = timed_gate(tmp_path, ("3.6.0", "3.9.0"))
    document = json.loads(done.stdout)
    assert (done.returncode, document["verdict"]) == (4, "INVALID"), done.stdout + done.stderr
    (one,) = document["series"]
    assert (one["name"], one["verdict"]) == ("speed/machine/software", "INVALID")
    words = "wanted at most 0, got 1; differs: triton 3.6.0 in base, 3.9.0 in head"
    assert words in one["note"]
    recorded = {sample["subject"]: str(sample["detail"]) for sample in samples_of(tmp_path)}
    assert "triton 3.6.0" in recorded["base"].rpartition(";")[2]
    assert f"python {platform.python_version()}, torch " in recorded["head"]


@pytest.mark.slow
def test_different_versions_are_timed_where_that_is_asked_for(tmp_path):
    done = timed_gate(tmp_path, ("3.6.0", "3.9.0"), "--may-differ", "triton")
    document = json.loads(done.stdout)
    named = {series["name"]: series for series in document["series"]}
    assert named["speed/machine/software"]["verdict"] == "NO_SIGNAL"
    assert named["speed/attend/small"]["effect"] is not None, done.stderr
    assert "--may-differ triton" in named["speed/attend/small"]["repro"]
    details = [str(s["detail"]) for s in samples_of(tmp_path) if "software" in str(s["series"])]
    assert all("may differ: triton 3.6.0 in base, 3.9.0 in head" in text for text in details)
    other = timed_gate(tmp_path, ("", ""), "--resume")
    assert (other.returncode, other.stdout) == (2, "")
    assert "differs in judge" in other.stderr
    (site,) = (tmp_path / "head" / "lib").glob("python*/site-packages")
    (site / "triton-3.9.0.dist-info").rename(site / "triton-3.9.1.dist-info")
    metadata = site / "triton-3.9.1.dist-info" / "METADATA"
    metadata.write_text(metadata.read_text().replace("3.9.0", "3.9.1"))
    other = timed_gate(tmp_path, ("", ""), "--may-differ", "triton", "--resume")
    assert other.returncode == 2
    assert "--resume: wanted base on the recorded may differ: triton 3.6.0" in other.stderr
