"""The site of the history: what it shows, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from msa_harness.records import RunError
from msa_harness.verdicts import Verdict

pytest.importorskip("asv", reason="asv is an extra")

from histories import git, publish_six, recall, written

from msa_reports.history.export import BENCHMARKS, TRACKS, read_tracks
from msa_reports.history.lines import read_verdicts
from msa_reports.history.site import publish

pytestmark = pytest.mark.whole


def spoil_commit(run):
    path = run / "run.json"
    path.write_text(
        path.read_text()
        .replace(json.loads(path.read_text())["subjects"]["base"]["revision"], "f" * 40)
        .replace(json.loads(path.read_text())["subjects"]["head"]["revision"], "e" * 40)
    )


def spoil_created(run, created):
    path = run / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"created": created}))


def test_the_overview_says_direction_threshold_verdict_and_changes(judged, history, make_series):
    repo, commits = history
    found = publish_six(judged, make_series, repo, commit_url="https://host.invalid/commit/")
    page = found.overview.read_text()
    assert "2 series over 6 commits on 1 machine; none bad at its last verdict." in page
    assert ">higher<" in page
    assert "0.97 → 0.5, worse" in page
    assert f'href="https://host.invalid/commit/{commits[3]}"' in page
    assert 'href="index.html#quality.msa_facts.recall"' in page
    publish([], repo / "asv.conf.json")
    assert "host.invalid" not in found.overview.read_text()


def test_the_newest_judged_commit_gives_the_verdict(judged, history, make_series):
    repo, _ = history
    later = judged([recall(make_series, 0.5, Verdict.REGRESSION)], base=4, head=5, name="a")
    earlier = judged(
        [recall(make_series, 0.97)], base=0, head=1, name="b", created="2026-03-01T00:00:00+00:00"
    )
    page = publish([later, earlier], repo / "asv.conf.json").overview.read_text()
    assert "1 bad at the last verdict" in page


def test_asv_run_drops_the_tracks_and_publish_names_them_again(judged, history, make_series):
    repo, _ = history
    publish([judged([make_series()])], repo / "asv.conf.json")
    path = repo / "reports/published/asv" / BENCHMARKS
    own = {"name": "times.Own.time_x", "type": "time", "unit": "seconds", "version": "1",
           "param_names": [], "params": [], "code": ""}  # fmt: skip
    path.write_text(json.dumps({"version": 2, "times.Own.time_x": own}))
    found = publish([], repo / "asv.conf.json")
    listed = json.loads((found.html / "index.json").read_text())["benchmarks"]
    assert set(listed) == {"times.Own.time_x", "speed.prefill.8192.low"}


def test_plain_asv_publish_makes_the_same_site_which_loads_nothing_from_elsewhere(
    judged, history, make_series
):
    repo, _ = history
    found = publish([judged([make_series()])], repo / "asv.conf.json")
    ours = (found.html / "index.html").read_text(), found.overview.read_text()
    done = subprocess.run(
        [sys.executable, "-m", "asv", "publish", "--no-pull"],
        cwd=repo, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert ours == ((found.html / "index.html").read_text(), found.overview.read_text())
    loaded = [part for part in ours[0].split("<") if part.startswith(("script", "link"))]
    assert not [part for part in loaded if "http" in part]
    names = [part.split("vendor/")[1].split('"')[0] for part in loaded if "vendor/" in part]
    assert len(names) == 8
    assert all((found.html / "vendor" / name).stat().st_size > 1000 for name in names)


def test_a_branch_that_is_not_shown_has_no_place_and_breaks_nothing(judged, history, make_series):
    repo, commits = history
    git(repo, "checkout", "-q", "-b", "feature", commits[0])
    (repo / "file").write_text("feature")
    git(repo, "commit", "-q", "-a", "-m", "feature")
    branch = git(repo, "rev-parse", "HEAD")
    git(repo, "checkout", "-q", "main")
    run = judged([make_series()])
    path = run / "run.json"
    path.write_text(path.read_text().replace(commits[1], branch))
    one = publish([run], repo / "asv.conf.json").exported[0]
    assert list(one.commits) == [commits[0]]
    assert f"commit {branch[:10]}: not on the branch that the history shows" in one.left_out


def test_a_folder_that_is_no_site_is_not_emptied(judged, history, make_series, tmp_path):
    repo, _ = history
    run = judged([make_series()])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter").write_text("dear")
    with pytest.raises(RunError, match="wanted an empty folder or a site"):
        publish([run], repo / "asv.conf.json", html=tmp_path / "mine")
    assert (tmp_path / "mine" / "letter").read_text() == "dear"
    assert not (repo / "reports/published/asv" / TRACKS).exists()


def test_a_threshold_is_of_its_line_and_its_time(judged, history, make_series):
    repo, _ = history
    newer = judged([make_series(threshold=0.02)], base=2, head=3, name="newer")
    older = judged([make_series(threshold=0.5)], created="2026-03-01T00:00:00+00:00")
    page = publish([newer, older], repo / "asv.conf.json").overview.read_text()
    assert ">2%<" in page
    assert ">50%<" not in page


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda run: (run / "verdict.json").unlink(), "wanted a judged run"),
        (lambda run: (run / "run.json").unlink(), "run.json"),
        (lambda run: (run / "verdict.json").write_text("{"), "verdict.json"),
        (spoil_commit, "on the branch that the history shows"),
        (lambda run: spoil_created(run, "yesterday"), "wanted a time with its zone"),
        (lambda run: spoil_created(run, "2026-02-01T00:00:00"), "wanted a time with its zone"),
        (lambda run: (run / "gpu.json").write_text("[]"), "wanted a GPU pass"),
    ],
)
def test_a_run_that_is_none_is_refused_in_words_and_nothing_is_written(
    judged, history, make_series, spoil, words
):
    repo, _ = history
    run = judged([make_series()])
    spoil(run)
    with pytest.raises(RunError, match=words):
        publish([run], repo / "asv.conf.json")
    assert not (repo / "reports/published/asv" / TRACKS).exists()


def test_no_history_and_no_configuration_are_refused_in_words(history, tmp_path):
    repo, _ = history
    with pytest.raises(RunError, match="wanted a history, got none"):
        publish([], repo / "asv.conf.json")
    with pytest.raises(RunError, match="not found"):
        publish([], tmp_path / "asv.conf.json")
    with pytest.raises(RunError, match="wanted a run directory"):
        publish([tmp_path / "nowhere"], repo / "asv.conf.json")


def test_hostile_names_are_text_on_the_overview_and_no_names_in_asv(
    judged, history, make_series, hostile
):
    repo, _ = history
    # A name in samples.jsonl is UTF-8.
    text = hostile.replace("\ud800", "")[:120]
    run = judged([make_series(name=f"speed/{text}", repro=text, unit="s")])
    found = publish([run], repo / "asv.conf.json")
    page = found.overview.read_text()
    assert "<script>window" not in page
    assert "<img" not in page
    (name,) = read_tracks(repo / "reports/published/asv")
    assert not set(name) - set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")


@pytest.mark.parametrize("text", ["[]", "{"])
def test_a_broken_list_of_benchmarks_is_named(judged, history, make_series, text):
    repo, _ = history
    written(judged([make_series()]), repo)
    (repo / "reports/published/asv" / BENCHMARKS).write_text(text)
    with pytest.raises(RunError, match=BENCHMARKS):
        publish([], repo / "asv.conf.json")


def test_verdicts_that_are_none_are_not_believed(judged, history, make_series):
    repo, _ = history
    publish([judged([make_series()])], repo / "asv.conf.json")
    folder = repo / "reports/published/asv"
    path = next(
        p for p in folder.glob("*/*.json") if p.name != "machine.json" and "PASS" in p.read_text()
    )
    path.write_text(path.read_text().replace('"PASS"', '"<b>FINE</b>"'))
    assert read_verdicts(folder)
    page = publish([], repo / "asv.conf.json").overview.read_text()
    assert "FINE" not in page
    assert "RECORDED" in page
