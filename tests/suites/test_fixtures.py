"""Shipped files are checked against their hashes before anything is measured."""

from __future__ import annotations

import hashlib
import shutil
import subprocess

import pytest

from msa_suites import cli, fixtures
from msa_suites.models import shipped
from msa_suites.models.shipped import EMBEDDED, SUMS, FixtureError, check_sums, write_sums
from msa_suites.quality import items


@pytest.fixture
def copy(tmp_path):
    return shutil.copytree(EMBEDDED, tmp_path / "embedded")


def flip(path, at=-1):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def test_what_is_shipped_has_its_hashes():
    fixtures.check_fixtures(["quality", "method", "speed"])
    done = subprocess.run(["sha256sum", "--check", "--strict", SUMS], cwd=EMBEDDED)
    assert done.returncode == 0


@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"]
)
def test_a_changed_byte_of_the_model_is_named_with_both_hashes(copy, name):
    wanted = hashlib.sha256((copy / name).read_bytes()).hexdigest()
    got = flip(copy / name)
    with pytest.raises(FixtureError, match=f"{name}: wanted sha256 {wanted}, got {got}"):
        check_sums(copy)
    write_sums(copy)
    check_sums(copy)
    (copy / name).unlink()
    with pytest.raises(FixtureError, match=f"{name}: wanted sha256 {got}, got No such file"):
        check_sums(copy)


@pytest.mark.parametrize("text", [None, "", "one-word\n"])
def test_hashes_that_cannot_be_read_are_refused(copy, text):
    (copy / SUMS).unlink()
    if text is not None:
        (copy / SUMS).write_text(text)
    with pytest.raises(FixtureError, match=f"{SUMS}: wanted"):
        check_sums(copy)


@pytest.mark.parametrize("suite", ["quality", "method", "speed"])
def test_a_run_on_a_changed_model_ends_before_it_measures(
    copy, suite, monkeypatch, capsys, tmp_path
):
    got = flip(copy / "model.safetensors")
    monkeypatch.setattr(fixtures, "EMBEDDED", copy)
    out = tmp_path / "run"
    assert cli.main(["check", "--suite", suite, "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert "model.safetensors: wanted sha256 " in said
    assert f"got {got}" in said
    assert not out.exists()


def test_a_run_on_changed_items_ends_before_it_measures(monkeypatch, capsys, tmp_path):
    data = shutil.copytree(items.DATA, tmp_path / "data")
    manifest = data / "manifest.json"
    flip(manifest, at=manifest.read_text().index(' "sha256": "') + 12)
    monkeypatch.setattr(fixtures, "check_items", lambda: items.check_items(data))
    assert cli.main(["check", "--suite", "quality", "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert "items of msa_niah_single: wanted content with sha256" in said
    assert "msa_niah_single.jsonl.gz" in said


def test_the_embedded_model_is_checked_where_it_is_loaded(copy, monkeypatch):
    from msa_suites.models import loading

    flip(copy / "model.safetensors", at=5000)
    monkeypatch.setattr(loading, "EMBEDDED", copy)
    monkeypatch.setattr(shipped, "EMBEDDED", copy)
    with pytest.raises(FixtureError, match=r"model\.safetensors: wanted sha256"):
        loading.load_model(str(copy))
