"""Runs in the history: what is written for asv, and what its site then shows."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msa_harness.records import RunError
from msa_harness.verdicts import SeriesVerdict, Verdict

pytest.importorskip("asv", reason="asv is an extra")

from asv.config import Config
from asv.repo import get_repo
from asv.results import iter_results
from histories import ROOT, git, publish_six, recall

from msa_reports.history.export import BENCHMARKS, TRACKS, export, read_tracks
from msa_reports.history.lines import read_verdicts
from msa_reports.history.recordings import read
from msa_reports.history.site import publish
from msa_reports.history.tracks import tracks_of


def written(run, repo):
    """What of a run goes into the history; no site is built."""
    folder = repo / "reports/published/asv"
    folder.mkdir(parents=True, exist_ok=True)
    config = Config.load(str(repo / "asv.conf.json"))
    config.repo = str(repo)
    return export(read(run), folder, get_repo(config))


def results_of(repo):
    return {r.commit_hash: r for r in iter_results(str(repo / "reports/published/asv"))}


def test_a_run_becomes_results_of_both_commits(judged, history, make_series):
    repo, commits = history
    run = judged([make_series(), recall(make_series, 0.77, Verdict.REGRESSION)])
    found = written(run, repo)
    assert found.commits == {commits[1]: 2, commits[0]: 2}
    assert found.machine == "some-r-cpu-2-cores"
    results = results_of(repo)
    assert set(results) == set(commits[:2])
    value = results[commits[1]].get_result_value("quality.msa_facts.recall", [])
    assert value == [pytest.approx(0.23)]  # a loss
    seconds = results[commits[1]].get_result_value("speed.prefill.8192.low", [])
    assert seconds == [pytest.approx(0.444, rel=0.01)]
    assert results[commits[1]].get_result_stats("speed.prefill.8192.low", [])[0]["repeat"] == 8
    assert results[commits[1]].params["profile"] == "quick"
    assert "torch" not in results[commits[1]].params  # a version is a step, not a new line


def test_writing_a_run_again_changes_nothing(judged, history, make_series):
    repo, _ = history
    run = judged([make_series()])
    written(run, repo)
    folder = repo / "reports/published/asv"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    written(run, repo)
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


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


@pytest.mark.parametrize("verdict", [Verdict.INVALID, Verdict.ERROR])
def test_what_says_nothing_of_the_code_is_left_out(judged, history, make_series, verdict):
    repo, commits = history
    run = judged([make_series(verdict=verdict), recall(make_series, 0.97)])
    one = written(run, repo)
    assert one.commits == {commits[1]: 1, commits[0]: 1}
    assert "1 series, INVALID or ERROR" in one.left_out[0]


def test_checks_without_a_value_are_the_share_that_passed(judged, history, make_series):
    repo, commits = history
    check = make_series(
        name="correctness/torch/attention", suite="correctness", unit="check", direction="higher",
        base=1.0, head=0.5, method="hard", verdict=Verdict.REGRESSION,
    )  # fmt: skip
    run = judged([check])
    path = run / "verdict.json"
    text = json.loads(path.read_text())
    text["series"][0] |= {"base": None, "head": None}
    path.write_text(json.dumps(text))
    written(run, repo)
    found = results_of(repo)[commits[1]].get_result_value("correctness.torch.attention", [])
    assert found == [pytest.approx(0.5, abs=0.01)]


def test_uncommitted_changes_have_no_place(judged, history, make_series):
    repo, commits = history
    one = written(judged([make_series()], dirty=True), repo)
    assert list(one.commits) == [commits[0]]
    assert f"head: uncommitted changes on {commits[1][:10]}" in one.left_out


def spoil_commit(run):
    path = run / "run.json"
    path.write_text(
        path.read_text()
        .replace(json.loads(path.read_text())["subjects"]["base"]["revision"], "f" * 40)
        .replace(json.loads(path.read_text())["subjects"]["head"]["revision"], "e" * 40)
    )


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda run: (run / "verdict.json").unlink(), "wanted a judged run"),
        (lambda run: (run / "run.json").unlink(), "run.json"),
        (lambda run: (run / "verdict.json").write_text("{"), "verdict.json"),
        (spoil_commit, "not in the repository"),
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


def test_series_that_would_share_a_name_are_not_mixed(make_series):
    tracks, left_out = tracks_of([make_series(name="speed/a b"), make_series(name="speed/a_b")])
    assert [track.series for track in tracks.values()] == ["speed/a b"]
    assert left_out == [
        "1 series, the first 'speed/a_b': name: 'speed/a b' has the same one in asv"
    ]


def test_what_has_no_loss_is_left_out_in_words(make_series):
    series = [make_series(name=f"speed/{i}", direction="higher", unit="tokens/s") for i in "ab"]
    _, left_out = tracks_of(series)
    assert left_out == [
        "2 series, the first 'speed/a': unit: wanted one of share, recall, check where higher is "
        "better (asv knows only lower), got 'tokens/s'"
    ]


@given(
    name=st.text(min_size=1, max_size=200),
    value=st.floats(0, 1, allow_nan=False),
    direction=st.sampled_from(["lower", "higher"]),
)
def test_a_track_is_safe_and_its_value_comes_back(name, value, direction):
    series = SeriesVerdict(name, "quality", "share", direction, Verdict.PASS, method="binary")
    tracks, left_out = tracks_of([series])
    if left_out:
        assert "name: wanted" in left_out[0]
        return
    track = tracks[name]
    assert not set(track.name) & set("/\\<>\"'&#? :\n")
    assert not track.name.startswith((".", "-"))
    assert track.published(track.published(value)) == pytest.approx(value, abs=1e-15)
    better = track.published(min(value + 0.1, 2.0)) < track.published(value)
    assert better == (direction == "higher")


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


def test_the_shipped_history_is_of_this_repository():
    """Every commit of the results that are kept here is a commit of main."""
    folder = ROOT / "reports/published/asv"
    if not (ROOT / ".git").exists():
        pytest.skip("no repository here: an archive of it")
    if git(ROOT, "rev-parse", "--is-shallow-repository") == "true":
        pytest.skip("a shallow clone has no history")
    known = set(git(ROOT, "rev-list", "--all").split())
    results = list(iter_results(str(folder)))
    assert len({one.commit_hash for one in results}) >= 10
    assert {one.commit_hash for one in results} <= known
