"""The package for the Hub runs where this project is not installed, and `kernels` loads it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from importlib.util import find_spec

import pytest
import torch
from test_gate_end_to_end import bench

from msa import reference
from msa.packing import cumulative
from msa_kernels.hub_package import write_package

KERNELS = "0.17.2"
BUILDS = ("torch-cpu", "torch-cuda")
NO_TRITON = "wanted triton >= 3.6 (extra `triton`), got none"

#: Where neither of our packages can be imported, wherever they are installed.
BLOCKED = """
import importlib, sys


class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("msa", "msa_kernels"):
            raise ModuleNotFoundError(f"{name} is blocked")


sys.meta_path.insert(0, Blocked())
place, given, results = sys.argv[1:]
for name in ("msa", "msa_kernels"):
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        continue
    raise AssertionError(f"{name} can be imported")
"""

#: As `kernels` imports a build: by its file, under a name of its own. Then all modules of it.
BY_HAND = """
import importlib.util, pkgutil


def load(file, name):
    spec = importlib.util.spec_from_file_location(name, file)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


package = load(f"{place}/__init__.py", "_loaded_1a2b3c")
needs_triton = f"{package.__name__}.msa_kernels.triton_ops."
for one in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
    if package.IMPLEMENTATION == "triton" or not one.name.startswith(needs_triton):
        importlib.import_module(one.name)
older = load(f"{place}/msa_bench/__init__.py", "_older_1a2b3c")
assert older.__all__ == package.__all__
assert all(hasattr(older, name) for name in older.__all__)
"""

BY_KERNELS = """
from pathlib import Path

import kernels
from kernels._rust import Digest, DigestAlgorithm

for build in Path(place, "build").iterdir():
    written = kernels._rust.Metadata.read_from_file(build / "metadata.json").digest
    written.validate(Digest.hash_variant(DigestAlgorithm.SHA256, build))
package = kernels.get_local_kernel(Path(place))
assert package.__name__.startswith("_msa_bench_")
"""

COMPUTED = """
import torch

data = torch.load(given)
tensors, lens, rest = data["tensors"], data["lens"], data["rest"]
q, k, v, q_idx, k_idx = tensors
out, selection = package.attend(*tensors, **lens, **rest)
lists = package.build_k2q_csr(
    selection.transpose(0, 1).contiguous(),
    lens["cu_q"],
    lens["cu_k"],
    rest["block"],
    total_k=len(k),
)
listed = package.sparse_atten_func(
    q, k, v, *lists, rest["topk"],
    cu_seqlens_q=lens["cu_q"], cu_seqlens_k=lens["cu_k"], max_seqlen_q=70, max_seqlen_k=300,
    blk_kv=rest["block"], causal=True, softmax_scale=rest["scale"], return_softmax_lse=True,
)
assert not [name for name in sys.modules if name.partition(".")[0] in ("msa", "msa_kernels")]
torch.save(
    {
        "implementation": package.IMPLEMENTATION,
        "why": package.WHY_NOT_TRITON,
        "out": out,
        "selection": selection,
        "listed": listed,
        "lse": package.sparse_attention(
            q, k, v, selection, **lens, block=rest["block"], scale=rest["scale"]
        )[1],
    },
    results,
)
"""

#: A module that `msa-bench` tests: what `kernels` loads, and our adapter of the Hub's kernel on it.
SUBJECTS = """
import os
from pathlib import Path

from kernels import get_local_kernel

from msa_kernels.adapters import hub_msa

package = get_local_kernel(Path(os.environ["MSA_BENCH_HUB_KERNEL"]))


class Adapted:
    CAPABILITIES = {**hub_msa.CAPABILITIES, "devices": ["cpu"]}
    sparse_attention = staticmethod(hub_msa.sparse_attention)
"""

SHAPE = {"Hq": 4, "Hkv": 2, "D": 128, "Di": 128, "dtype": "bfloat16"}
SHAPES = [
    {"name": "ragged", "q_lens": [5, 140], "k_lens": [2300, 140], **SHAPE},
    {"name": "decode", "q_lens": [1, 1], "k_lens": [2430, 300], **SHAPE},
]


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    out = tmp_path_factory.mktemp("hub") / "package"
    write_package(out)
    return out


def inputs():
    """Two sequences, the first with more blocks than are kept."""
    draw = torch.Generator().manual_seed(11)
    shapes = [(73, 4, 32), (440, 2, 32), (440, 2, 32), (73, 2, 32), (440, 1, 32)]
    return {
        "tensors": [torch.randn(*shape, generator=draw) for shape in shapes],
        "lens": {"cu_q": cumulative([70, 3]), "cu_k": cumulative([300, 140])},
        "rest": {
            **{"block": 32, "topk": 4, "local_blocks": 1, "sink_blocks": 0},
            **{"scale": 32**-0.5, "index_scale": 32**-0.5},
        },
    }


def run(python, script, place, tmp_path, **environment):
    """What a process without msa computed, and with what; its numbers are the specification's."""
    given, results = tmp_path / "given.pt", tmp_path / "results.pt"
    torch.save(inputs(), given)
    done = subprocess.run(
        [python, "-I", "-B", "-c", BLOCKED + script + COMPUTED, *map(str, (place, given, results))],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    found = torch.load(results)
    ours = inputs()
    out, selection = reference.attend(*ours["tensors"], **ours["lens"], **ours["rest"])
    assert torch.equal(found["selection"].sort(-1).values, selection.sort(-1).values)
    for one in (found["out"], found["listed"][0]):
        torch.testing.assert_close(one, out, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["lse"], found["listed"][1], rtol=1e-5, atol=1e-5)
    return found["implementation"], found["why"]


@pytest.mark.parametrize("build", BUILDS)
def test_it_runs_where_the_project_is_not(package, build, tmp_path):
    ran = run(sys.executable, BY_HAND, package / "build" / build, tmp_path)
    if find_spec("triton") is None:
        assert ran == ("torch", NO_TRITON)


@pytest.mark.skipif(find_spec("triton") is None, reason="wanted triton, got none")
def test_its_kernels_run_interpreted(package, tmp_path):
    place = package / "build" / "torch-cuda"
    ran = run(sys.executable, BY_HAND, place, tmp_path, TRITON_INTERPRET="1")
    assert ran == ("triton", None)


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """A Python with `kernels` and what that needs of its own; torch is this environment's."""
    place = tmp_path_factory.mktemp("kernels")
    venv.create(place, symlinks=True, with_pip=True)
    (site,) = (place / "lib").glob("python*/site-packages")
    got = subprocess.run(
        [place / "bin" / "python", "-m", "pip", "install", "-q", f"kernels=={KERNELS}"],
        capture_output=True,
        text=True,
    )
    if "ConnectionError" in got.stderr or "No matching distribution" in got.stderr:
        pytest.skip(f"no package index has kernels {KERNELS} to offer: {got.stderr[-200:]}")
    assert got.returncode == 0, got.stderr
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return str(place / "bin" / "python")


@pytest.mark.slow
def test_kernels_loads_it(package, python, tmp_path):
    """By `get_local_kernel`, whose own reader and digest take what was written."""
    ran = run(python, BY_KERNELS, package, tmp_path, HF_HUB_OFFLINE="1")
    if find_spec("triton") is None:
        assert ran == ("torch", NO_TRITON)


@pytest.mark.slow
@pytest.mark.parametrize("subject", ["package", "Adapted"])
def test_what_kernels_loads_conforms(package, python, tmp_path, monkeypatch, subject):
    """Every check of every operation; and our adapter of the Hub's kernel with this one in it."""
    monkeypatch.setenv("MSA_BENCH_HUB_KERNEL", str(package))
    (tmp_path / "subjects.py").write_text(SUBJECTS)
    lines = "".join(json.dumps(shape) + "\n" for shape in SHAPES)
    (tmp_path / "shapes.jsonl").write_text(lines)
    named = f"{tmp_path / 'subjects.py'}:{subject}"
    cases = ("--cases", "shapes.jsonl")
    done = bench(
        tmp_path, "conformance", "--implementation", named, "--python", python, *cases, "--json"
    )
    assert done.stdout, done.stderr
    document = json.loads(done.stdout)
    assert (done.returncode, document["failed"]) == (0, 0), document["failures"]
    assert document["passed"] >= (40 if subject == "package" else 5)
