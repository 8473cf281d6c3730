"""What the compiler makes of the kernels in Gluon, which no test here runs on a GPU."""

from __future__ import annotations

import json

import pytest
from test_gate_end_to_end import bench

from msa_suites.aot.rules import GLUON_RULES


@pytest.fixture
def aot(monkeypatch):
    """The command, whose workers do not interpret as this process may do."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    return lambda *argv: bench(".", "aot", *argv)


@pytest.mark.parametrize(
    "build",
    ["bfloat16-D64-Bk128-R16-k16", "bfloat16-D128-Bk128-R16-k16-cache-float4_e2m1fn_x2"],
)
@pytest.mark.parametrize(
    ("name", "arch", "product"),
    [("sm100", "sm_103a", "tcgen05.mma"), ("sm90", "sm_90a", "wgmma.mma_async")],
)
def test_every_kernel_of_an_arm_is_as_it_must_be(name, arch, product, build, aot):
    done = aot("--implementation", name, "--arch", arch, "--build", build, "--json")
    kernels = json.loads(done.stdout)["kernels"]
    assert done.returncode == 0, [one for one in kernels if not one["ok"]]
    assert {one["name"].partition(".")[0] for one in kernels} == set(GLUON_RULES)
    for one in kernels:
        if one["name"] != "merge_tile":
            assert one["instructions"][product] > 0
            assert one["instructions"]["cp.async.bulk"] > 0
        assert one["spill_bytes"] == 0


def test_an_arm_is_not_compiled_for_what_it_is_not_written_for(aot):
    done = aot("--implementation", "sm90", "--arch", "sm_100a")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--arch: wanted sm_90a of sm90, got sm_100a" in done.stderr
