"""Full disks, read-only folders and two runs at once, for real and through the command line."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from functools import partial

import pytest
from test_gate_end_to_end import CASES, GOOD

from msa_harness.files import alone
from msa_suites import cli

# A second run finds the first at work.
WAITING = (
    GOOD
    + """
def select_blocks(*args, **kwargs):
    import pathlib, time

    while pathlib.Path("HOLD").exists():
        time.sleep(0.05)
    return reference.select_blocks(*args, **kwargs)
"""
)

OPTIONS = ["--implementation", "theirs", "--base-path", "base", "--head-path", "head"]
OPTIONS += ["--suite", "correctness", "--cases", "cases.jsonl", "--threads", "1", "--out", "run"]
GATE = [sys.executable, "-P", "-m", "msa_suites", "gate", *OPTIONS]
NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount"]


def _mounts() -> bool:
    if shutil.which("unshare") is None:
        return False
    probe = [*NAMESPACE, "mount", "-t", "tmpfs", "-o", "size=64k", "probe", "/mnt"]
    return subprocess.run(probe, capture_output=True).returncode == 0


needs_mounts = pytest.mark.skipif(not _mounts(), reason="wants user namespaces that may mount")


@pytest.fixture
def folder(tmp_path):
    def make(source=GOOD):
        for label in ("base", "head"):
            (tmp_path / label).mkdir()
            (tmp_path / label / "theirs.py").write_text(source)
        cases = [{**CASES[0], "name": f"case-{n}", "q_lens": [70 + n], "k_lens": [70 + n]}
                 for n in range(4)]  # fmt: skip
        (tmp_path / "cases.jsonl").write_text("".join(json.dumps(case) + "\n" for case in cases))
        return tmp_path

    return make


def run(where, command, **how):
    done = subprocess.run(command, cwd=where, capture_output=True, text=True, timeout=250, **how)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def keys(text):
    rows = [json.loads(line) for line in text.splitlines()]
    return sorted((row["series"], row["subject"], row["item"]) for row in rows)


@pytest.mark.slow
@needs_mounts
def test_a_full_disk_ends_a_run_that_goes_on_once_there_is_room(folder):
    where = folder()
    script = """
        mkdir run && mount -t tmpfs -o size=48k small run || exit 90
        "$@"; first=$?
        cp run/samples.jsonl kept.jsonl
        mount -o remount,size=10m small run || exit 91
        "$@" --resume; second=$?
        cp run/samples.jsonl run/verdict.json .
        echo "exit codes $first $second"
    """
    done = run(where, [*NAMESPACE, "sh", "-c", script, "sh", *GATE])
    assert "exit codes 2 0" in done.stdout, done.stdout + done.stderr
    (said,) = (line for line in done.stderr.splitlines() if "error" in line)
    kept = (where / "kept.jsonl").read_text()
    number = len(kept.splitlines())
    assert number > 0
    assert "cannot append to run/samples.jsonl: the disk is full" in said
    assert f"{number} samples are kept" in said
    assert "make room and go on with --resume" in said
    whole = (where / "samples.jsonl").read_text()
    assert whole.startswith(kept)
    assert len(keys(whole)) > number
    assert len(set(keys(whole))) == len(keys(whole))
    assert json.loads((where / "verdict.json").read_text())["verdict"] == "PASS"


@pytest.mark.slow
def test_a_file_that_may_not_grow_ends_a_run_in_words(folder):
    where = folder()
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (24_000, resource.RLIM_INFINITY))
    done = run(where, GATE, preexec_fn=limit)
    assert done.returncode == 2
    assert "samples.jsonl: the file may not grow beyond the limit of this process" in done.stderr
    kept = (where / "run" / "samples.jsonl").read_text()
    assert run(where, [*GATE, "--resume"]).returncode == 0
    assert (where / "run" / "samples.jsonl").read_text().startswith(kept)


@pytest.mark.slow
@needs_mounts
@pytest.mark.parametrize("start", ["mkdir closed", "mkdir closed closed/run"])
def test_a_read_only_run_directory_is_refused_before_anything_is_measured(folder, start):
    where = folder()
    script = f"""
        {start} && mount --bind closed closed && mount -o remount,bind,ro closed || exit 90
        exec "$@" --out closed/run
    """
    began = time.monotonic()
    done = run(where, [*NAMESPACE, "sh", "-c", script, "sh", *GATE])
    assert done.returncode == 2, done.stderr
    assert "closed/run" in done.stderr
    assert "read-only" in done.stderr
    assert "check 1" not in done.stderr
    assert "run directory:" not in done.stderr
    assert time.monotonic() - began < 60


def test_a_place_that_may_not_be_written_is_refused_in_words(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)
    assert cli.main(["check", "--suite", "work", "--out", str(tmp_path / "run")]) == 2
    assert f"{tmp_path} is read-only, or not ours to write" in capsys.readouterr().err


def test_a_folder_that_is_a_file_is_refused_in_words(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert cli.main(["check", "--suite", "work", "--out", str(tmp_path / "file" / "run")]) == 2
    assert "file is no directory" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", [["check", "--suite", "work"], ["check", "--resume"], ["gate"], ["sweep"]]
)
def test_a_second_run_in_one_directory_is_refused_at_once(tmp_path, capsys, command):
    with alone(tmp_path / "run"):
        assert cli.main([*command, "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert f"got a second writer (process {os.getpid()} is running there)" in said


@pytest.mark.slow
def test_of_two_runs_at_once_the_second_is_refused_and_the_first_is_undisturbed(folder, tmp_path):
    hold = tmp_path / "hold"
    hold.touch()
    where = folder(WAITING.replace("HOLD", str(hold)))
    with subprocess.Popen(GATE, cwd=where, stdout=-3, stderr=-3) as first:
        deadline = time.monotonic() + 120
        while not (where / "run" / "run.json").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        try:
            for more in ([], ["--resume"]):
                began = time.monotonic()
                second = run(where, [*GATE, *more])
                assert second.returncode == 2
                assert f"process {first.pid} is running there" in second.stderr
                assert time.monotonic() - began < 20
        finally:
            hold.unlink()
        assert first.wait(timeout=200) == 0
    found = keys((where / "run" / "samples.jsonl").read_text())
    assert len(set(found)) == len(found)
    # A finished run leaves no lock behind.
    assert run(where, [*GATE, "--resume"]).returncode == 0
