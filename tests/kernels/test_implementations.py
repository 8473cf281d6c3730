"""The table of implementations: names, capabilities, identities, reasons."""

import subprocess
import sys
import types

import pytest
import torch

import msa.fast
import msa.reference
import msa_kernels
from msa_kernels import Capabilities, ImplementationError


def test_names_lead_to_modules():
    assert msa_kernels.load("reference") is msa.reference
    assert msa_kernels.load("torch") is msa.fast
    assert msa_kernels.load("msa.fast") is msa.fast
    assert msa_kernels.load(msa.fast) is msa.fast


def test_a_bare_callable_is_attend():
    found = msa_kernels.load("msa.reference:attend")
    assert msa_kernels.operations(found) == ("attend",)
    assert found.attend is msa.reference.attend
    assert msa_kernels.identity(found).name == "msa.reference:attend"


def test_a_class_is_made_and_an_object_is_taken():
    class Mine:
        def attend(self):
            return None

        def combine(self):
            return None

    assert msa_kernels.operations(msa_kernels.load(Mine)) == ("combine", "attend")
    assert msa_kernels.operations(msa_kernels.load(Mine())) == ("combine", "attend")


def test_a_file_can_be_named(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("class A:\n    @staticmethod\n    def attend(): return 3\n")
    found = msa_kernels.load(f"{path}:A")
    assert found.attend() == 3
    identity = msa_kernels.identity(found)
    assert identity.file == str(path)
    assert len(identity.sha256) == 64


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("tourch", r"wanted one of reference, torch, .*got 'tourch'; did you mean torch\?"),
        ("nothing_of_that_name", r"wanted one of .*got 'nothing_of_that_name'$"),
        ("no_module:attend", r"cannot import no_module: ModuleNotFoundError.*file.py:object"),
        ("msa.reference:atend", r"'atend', which it has not; did you mean attend\?"),
        ("msa.packing", "wanted a callable or at least one of block_scores"),
        ("missing.py:attend", "FileNotFoundError: wanted a Python file, got missing.py"),
    ],
)
def test_what_cannot_be_found_says_why(spec, message):
    with pytest.raises(ImplementationError, match=message):
        msa_kernels.load(spec)


def test_a_module_that_breaks_says_so(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text("raise OSError('no such card')\n")
    with pytest.raises(ImplementationError, match="OSError: no such card"):
        msa_kernels.load(f"{path}:attend")


def test_what_cannot_run_here_says_so_and_nothing_falls_back():
    module = types.SimpleNamespace(attend=lambda: None, unavailable=lambda: "needs SM100")
    with pytest.raises(ImplementationError, match="cannot run here: needs SM100"):
        msa_kernels.load(module)


def test_a_reason_is_asked_for_before_operations():
    module = types.SimpleNamespace(unavailable=lambda: "wanted a library, got none")
    with pytest.raises(ImplementationError, match="cannot run here: wanted a library, got none"):
        msa_kernels.load(module)


@pytest.mark.parametrize(
    ("hidden", "reason"),
    [
        ("triton", "wanted triton >= 3.6 (extra `triton`), got none"),
        ("", "wanted "),  # no triton, or no device: either way in words
    ],
)
def test_triton_is_imported_when_it_is_asked_for(hidden, reason):
    code = f"""
import sys
import msa_kernels
assert not {{"torch", "triton"}} & set(sys.modules), "msa_kernels is cheap to import"
if {hidden!r}:
    sys.modules[{hidden!r}] = None
try:
    msa_kernels.load("triton")
except msa_kernels.ImplementationError as error:
    print(error)
"""
    environment = {"TRITON_INTERPRET": "0", "CUDA_VISIBLE_DEVICES": "", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert f"implementation 'triton' cannot run here: {reason}" in done.stdout


def test_an_installed_package_enters_its_own_name(tmp_path, monkeypatch):
    info = tmp_path / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    entries = "theirs_msa = theirs_package:attend\ntorch = theirs_package:attend\n"
    (info / "entry_points.txt").write_text(f"[{msa_kernels.GROUP}]\n{entries}")
    (tmp_path / "theirs_package.py").write_text("def attend(q, k, v, q_idx, k_idx): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert msa_kernels.identity(msa_kernels.load("theirs_msa")).name == "theirs_package:attend"
    rows = {row.name: row for row in msa_kernels.describe()}
    assert rows["theirs_msa"].operations == ("attend",)
    # Nobody takes a name of ours.
    assert rows["torch"].where == "msa.fast"
    with pytest.raises(msa_kernels.ImplementationError, match="did you mean theirs_msa"):
        msa_kernels.load("their_msa")


def test_describe_has_a_row_or_a_reason_for_each():
    rows = {row.name: row for row in msa_kernels.describe()}
    assert set(rows) == set(msa_kernels.IMPLEMENTATIONS)
    assert all(bool(row.operations) != bool(row.unavailable) for row in rows.values())
    assert "attend" in rows["torch"].operations


def test_the_card_is_plain_data():
    card = msa_kernels.card("torch")
    assert card["operations"] == list(msa_kernels.operations(msa.fast))
    assert Capabilities.parse(card["capabilities"], card["operations"]) == (
        msa_kernels.capabilities(msa.fast)
    )
    assert card["identity"]["version"] == msa.__version__


def test_identity_follows_the_bytes(tmp_path):
    digests = set()
    for text in ("def attend(): return 1\n", "def attend(): return 2\n"):
        path = tmp_path / "same.py"
        path.write_text(text)
        digests.add(msa_kernels.identity(msa_kernels.load(f"{path}:attend")).sha256)
    assert len(digests) == 2


def test_capabilities_read_many_spellings():
    found = Capabilities.parse(
        {"dtypes": [torch.float32, "bf16"], "paged": False, "head dims": (64,), "notes": "x"}, []
    )
    assert found.dtypes == {"float32", "bfloat16"}
    assert found.layouts == {"packed"}
    assert found.head_dims == {64}
    assert found.why_not(head_dim=64) is None
    assert found.why_not(head_dim=32) == "head dim 32: its capabilities are 64"


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"dtype": ["float32"]}, "wanted dtypes"),
        ({"nan_score": True}, "wanted nan_scores"),
        ({"dtypes": "float32"}, r"CAPABILITIES\['dtypes'\]: wanted a list"),
        ({"head_dims": ["64"]}, "wanted a list of ints"),
        ({"nan_scores": "yes"}, "wanted true or false"),
        ({"tie_rule": 1}, "wanted a string"),
    ],
)
def test_bad_capabilities_are_named(record, message):
    module = types.SimpleNamespace(attend=lambda: None, CAPABILITIES=record)
    with pytest.raises(ImplementationError, match=message):
        msa_kernels.capabilities(module)


def test_a_module_may_have_a_name_like_one_of_ours(tmp_path, monkeypatch):
    (tmp_path / "my_triton.py").write_text(
        "CAPABILITIES = {'head_dims': [128]}\ndef attend(): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("my_triton", "my_triton:attend"):  # the limits of a module hold for its functions
        assert msa_kernels.capabilities(msa_kernels.load(name)).head_dims == {128}
    with pytest.raises(ImplementationError, match="did you mean triton"):
        msa_kernels.load("tritom")
