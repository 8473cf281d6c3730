"""Runs in the history: what is written for asv."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msa_harness.records import RunError
from msa_harness.verdicts import SeriesVerdict, Verdict

pytest.importorskip("asv", reason="asv is an extra")

from asv.results import iter_results
from histories import ROOT, git, recall, written

from msa_reports.history.export import read_tracks
from msa_reports.history.lines import read_verdicts
from msa_reports.history.tracks import VERSIONS, tracks_of


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


def on_gpu(run, name):
    path = run / "run.json"
    header = json.loads(path.read_text())
    header["environment"] |= {"device": "cuda", "gpu": {"name": name} if name else {}}
    path.write_text(json.dumps(header))
    return run


def test_a_gpu_is_a_machine_by_its_name(judged, history, make_series):
    repo, _ = history
    run = on_gpu(judged([make_series()]), "NVIDIA B200")
    assert written(run, repo).machine == "nvidia-b200"
    with pytest.raises(RunError, match="--machine"):
        written(on_gpu(judged([make_series()], name="other"), ""), repo)


def test_a_series_turns_round_only_with_a_new_version(judged, history, make_series, monkeypatch):
    repo, commits = history
    written(judged([recall(make_series, 0.9)]), repo)
    turned = make_series(name="quality/msa_facts/recall", suite="quality", unit="nats")
    run = judged([turned], name="turned", created="2026-02-02T00:00:00+00:00")
    with pytest.raises(RunError, match="as its history has it, got nats, lower"):
        written(run, repo)
    monkeypatch.setitem(VERSIONS, "quality", "2")
    assert set(written(run, repo).commits) == set(commits[:2])
    track = read_tracks(repo / "reports/published/asv")["quality.msa_facts.recall"]
    assert (track.unit, track.version) == ("nats", "2")


@pytest.mark.parametrize("unit", ["<img src=x onerror=alert(1)>", "", "x" * 41, 'a"b'])
def test_a_unit_that_a_page_would_run_is_left_out(make_series, unit):
    tracks, left_out = tracks_of([make_series(unit=unit)])
    assert not tracks
    assert "unit: wanted 1 to 40 letters and digits" in left_out[0]


def test_facts_of_a_machine_are_no_html(judged, history, make_series):
    repo, _ = history
    run = judged([make_series()])
    path = run / "run.json"
    header = json.loads(path.read_text())
    header["environment"]["cpu_model"] = header["profile"] = "<img src=x onerror=alert(1)>"
    path.write_text(json.dumps(header))
    written(run, repo)
    for file in (repo / "reports/published/asv").rglob("*.json*"):
        assert "<" not in file.read_text()


def test_uncommitted_changes_have_no_place(judged, history, make_series):
    repo, commits = history
    one = written(judged([make_series()], dirty=True), repo)
    assert list(one.commits) == [commits[0]]
    assert f"head: uncommitted changes on {commits[1][:10]}" in one.left_out


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


@pytest.mark.parametrize("text", ["[]", "{", '{"msa_bench_verdicts": []}'])
def test_broken_results_are_named(judged, history, make_series, text):
    repo, _ = history
    written(judged([make_series()]), repo)
    folder = repo / "reports/published/asv"
    path = next(p for p in folder.glob("*/*.json") if p.name != "machine.json")
    path.write_text(text)
    with pytest.raises(RunError, match=path.name):
        read_verdicts(folder)


def test_the_shipped_history_is_of_this_repository():
    """Every commit of the results that are kept here is a commit of main."""
    folder = ROOT / "reports/published/asv"
    if not (ROOT / ".git").exists():
        pytest.skip("no repository here: an archive of it")
    if git(ROOT, "rev-parse", "--is-shallow-repository") == "true":
        pytest.skip("a shallow clone has no history")
    known = set(git(ROOT, "rev-list", "--first-parent", "HEAD").split())
    results = list(iter_results(str(folder)))
    assert len({one.commit_hash for one in results}) >= 10
    assert {one.commit_hash for one in results} <= known
