"""The builder's three rules: thresholds, numbers, and what a user of ``check`` sees of them."""

from __future__ import annotations

import argparse
import json

import pytest

from msa_suites import cli
from msa_suites.advice import advise, advise_budget, advise_length, advise_pooling
from msa_suites.commands import check
from msa_suites.models.attention import MsaSettings

#: The released model's: k 16 of 128 tokens, the local block alone forced.
M3 = MsaSettings(topk=16, block=128, sink_blocks=0)
#: The first document's model: 16 and 2 heads.
QWEN = {"q_heads": 16, "kv_heads": 2, "dim": 128, "index_dim": 128}


@pytest.mark.parametrize(
    ("topk", "sink", "local", "level", "words"),
    [
        (2, 1, 1, "warning", "k 2 is eaten by the blocks that are always kept (1 sink + 1 local)"),
        (2, 1, 1, "warning", "recalled none of twelve facts so, and all twelve with 6 free slots"),
        (3, 1, 1, "warning", "leaves 1 free slot beside"),
        (3, 1, 1, "warning", "recalled a third of twelve facts"),
        (4, 1, 1, "warning", "2 free slots beside the blocks that are always kept (1 sink"),
        (4, 1, 1, "warning", "almost all of twelve facts so, and all twelve"),
        (
            5,
            1,
            1,
            "warning",
            "A retrofitted Qwen2.5-3B recalled all twelve with 6 free slots (k 8 here)",
        ),
        (7, 1, 1, "warning", "5 free slots"),
        (8, 1, 1, "ok", "6 free slots"),
        (7, 0, 1, "ok", "6 free slots"),
        (16, 4, 8, "warning", "4 free slots beside the blocks that are always kept (4 sink + 8 "),
        (16, 4, 8, "warning", "(k 18 here)"),
        (1, 0, 1, "warning", "k 1 is eaten"),
    ],
)
def test_the_forced_blocks_eat_the_budget(topk, sink, local, level, words):
    said = advise_budget(MsaSettings(topk=topk, sink_blocks=sink, local_blocks=local))
    assert (said.rule, said.level) == ("budget", level)
    assert words in said.text


@pytest.mark.parametrize("scorer", ["max", "index", "dsa_standin"])
def test_the_best_token_is_kept(scorer):
    assert advise_pooling(MsaSettings(scorer=scorer)).level == "ok"


@pytest.mark.parametrize("scorer", ["mean", "quest", "random", "infllm_v2", "nsa_standin"])
def test_every_other_pooling_is_warned_of(scorer):
    said = advise_pooling(MsaSettings(scorer=scorer))
    assert said.level == "warning"
    assert said.text.startswith(f"scorer {scorer}: keep the max")


@pytest.mark.parametrize(
    ("context", "layer", "level", "words"),
    [
        (2048, None, "warning", "2,048 tokens fit into k * block = 2,048: nothing is skipped"),
        (2048, QWEN, "warning", "dense attention is 0.48 times MSA's work"),
        (2049, None, "warning", "Here dense attention costs less"),
        (4228, None, "warning", "breaks even at 4,228 tokens. Here dense attention costs less"),
        (4229, None, "warning", "8,192 tokens here"),
        (4300, QWEN, "warning", "this model breaks even at 4,369 tokens. Here dense"),
        (8191, None, "warning", "dense attention is 1.88 times MSA's work"),
        (8192, None, "ok", "dense attention is 1.88 times MSA's work"),
        (8192, QWEN, "ok", "dense attention is 1.78 times MSA's work"),
        (1 << 20, None, "ok", "dense attention is 28.44 times MSA's work"),
        (None, None, "ok", "up to k * block = 2,048 tokens nothing is skipped"),
        (None, None, "ok", "a layer of the paper's model breaks even at 4,228 tokens"),
    ],
)
def test_the_length_is_judged_by_equation_12(context, layer, level, words):
    said = advise_length(M3, context=context, layer=layer)
    assert (said.rule, said.level) == ("length", level)
    assert words in said.text


def test_the_limit_follows_the_budget():
    """About 8K is four times the 2,048 tokens of that model; a smaller budget pays sooner."""
    small = MsaSettings(topk=8, block=32)
    assert advise_length(small, context=1024).level == "ok"
    assert advise_length(small, context=1023).level == "warning"


def test_an_index_that_never_pays_is_said():
    layer = {"q_heads": 4, "kv_heads": 4, "dim": 16, "index_dim": 64}
    said = advise_length(M3, context=1 << 20, layer=layer)
    assert said.level == "warning"
    assert "never breaks even" in said.text


def test_all_rules_speak_in_order():
    assert [one.rule for one in advise(M3)] == ["budget", "pooling", "length"]


def test_a_layer_is_read_from_a_folder(tmp_path):
    file = tmp_path / "config.json"
    assert check._layer(check._config(None)) is None
    assert check._layer(check._config(str(tmp_path))) is None
    file.write_text(json.dumps({"model_type": "other"}))
    assert check._layer(check._config(str(tmp_path))) is None
    file.write_text("{")
    assert check._layer(check._config(str(tmp_path))) is None
    heads = {"num_attention_heads": 16, "num_key_value_heads": 2, "hidden_size": 2048}
    file.write_text(json.dumps(heads))
    assert check._layer(check._config(str(tmp_path))) == QWEN
    text = {**heads, "head_dim": 64, "sparse_attention_config": {"sparse_index_dim": 32}}
    file.write_text(json.dumps({"text_config": text}))
    assert check._layer(check._config(str(tmp_path))) == {**QWEN, "dim": 64, "index_dim": 32}


def parsed(*options):
    parser = argparse.ArgumentParser()
    check.add_arguments(parser)
    return parser.parse_args(options)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ([], None),
        (["--context", "4096"], None),
        (["--topk", "2"], "topk=2"),
        (["--sink", "0", "--local", "2"], "sink_blocks=0,local_blocks=2"),
        (["--msa", "topk=8,dense_layers=0+2", "--block", "16"],
         "topk=8,dense_layers=0+2,block=16"),
        (["--msa", "topk=8", "--topk", "8", "--scorer", "mean"], "topk=8,scorer=mean"),
    ],
)  # fmt: skip
def test_single_options_are_settings_of_msa(options, text):
    args = parsed(*options)
    check._settle_settings(args)
    assert args.msa == text


def test_nobody_is_advised_who_named_no_configuration():
    assert check._advice(parsed()) == []
    assert len(check._advice(parsed("--context", "9000"))) == 3


def test_advice_is_about_what_the_suite_would_run():
    """The suite's own defaults fill in what is not named: k 4 of 32, or the paper's with items."""
    budget, _, length = check._advice(parsed("--msa", "seed=1"))
    assert "k 4 leaves 2 free slots" in budget.text
    assert "k * block = 128 tokens" in length.text
    budget, _, length = check._advice(parsed("--msa", "seed=1", "--items", "somewhere"))
    assert "k 16 leaves 15 free slots" in budget.text
    assert "k * block = 2,048 tokens" in length.text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--topk", "1"], "topk: wanted at least the 1 local + 1 sink blocks that are forced"),
        (["--sink", "4"], "topk: wanted at least the 1 local + 4 sink blocks that are forced"),
        (["--topk", "2", "--msa", "topk=4"], "--topk: wanted topk in one place, got 2 beside"),
        (["--scorer", "maxx"], "--scorer: wanted one of max, mean"),
        (["--sink", "-1"], "wanted an int of 0 or more, got '-1'"),
        (["--context", "0"], "wanted an int above 0, got 0"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(capsys, tmp_path, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    try:
        code = cli.main(["check", *options])
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert words in err


@pytest.mark.parametrize("as_json", [False, True])
def test_a_check_advises_and_measures_what_was_configured(
    capsys, tmp_path, monkeypatch, tiny_model_dir, as_json
):
    """One short task of the quality suite, end to end; the verdict is that of the run alone."""
    monkeypatch.chdir(tmp_path)
    seen = []
    from msa_suites import running

    real = running.make_session

    def limited(command, args, plan):
        session = real(command, args, plan)
        seen.append(session.msa)
        return session

    monkeypatch.setattr(running, "make_session", limited)
    monkeypatch.setattr(running.runner, "measure", lambda *_: {"quality": 0.0})
    options = ["--suite", "quality", "--topk", "2", "--model", str(tiny_model_dir)]
    code = cli.main(["check", *options, "--out", "run", *(["--json"] if as_json else [])])
    out, err = capsys.readouterr()
    assert seen == [{"topk": 2}]
    plain = cli.main(["check", "--suite", "quality", "--out", "plain", "--model", options[-1]])
    assert code == plain
    assert "advice, budget: warning: k 2 is eaten by" in " ".join(err.split())
    if as_json:
        document = json.loads(out)
        assert [one["rule"] for one in document["advice"]] == ["budget", "pooling", "length"]
        assert document["advice"][0]["level"] == "warning"
        assert {"verdict", "series"} <= document.keys()
    assert "advice" not in capsys.readouterr().err


def test_a_model_with_a_branch_is_advised_on_its_own_settings():
    """Not on those of the training-free retrofit: one block forced, an index dim of its own."""
    from argparse import Namespace

    from msa_suites.commands import check
    from msa_suites.models.shipped import EMBEDDED_CPT

    args = Namespace(msa="topk=1", context=4096, items=None, model=str(EMBEDDED_CPT))
    texts = {one.rule: one for one in check._advice(args)}  # with a sink, k 1 would be refused
    assert "index" in texts["pooling"].text
    layer = check._layer(check._config(str(EMBEDDED_CPT)))
    assert layer == {"q_heads": 4, "kv_heads": 2, "dim": 32, "index_dim": 64}


def test_a_configuration_that_is_none_tells_nothing(tmp_path):
    from msa_suites.commands import check

    for text in ("[1]", "{", '{"text_config": null}'):
        (tmp_path / "config.json").write_text(text)
        assert check._layer(check._config(str(tmp_path))) is None
