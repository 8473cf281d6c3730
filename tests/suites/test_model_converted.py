"""The converted model that ships: whole, small, and as good as it is said to be."""

from __future__ import annotations

import pytest

from msa_suites.models.attention import MsaSettings, settings_for, use_dense, use_msa
from msa_suites.models.loading import load_model
from msa_suites.models.probe import perplexity, recall_by_length
from msa_suites.models.shipped import EMBEDDED, EMBEDDED_CPT, FixtureError, check_sums
from msa_suites.models.text import load_corpus

MOST_BYTES = 8_000_000


@pytest.fixture(scope="module")
def model():
    return load_model(str(EMBEDDED_CPT))[0]


@pytest.fixture(scope="module")
def corpus():
    return load_corpus()


def test_both_models_are_small():
    files = [path for folder in (EMBEDDED, EMBEDDED_CPT) for path in folder.iterdir()]
    assert sum(path.stat().st_size for path in files) <= MOST_BYTES


def test_it_is_whole(tmp_path):
    check_sums(EMBEDDED_CPT)
    for path in EMBEDDED_CPT.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    spoilt = tmp_path / "index_branch.safetensors"
    spoilt.write_bytes(spoilt.read_bytes()[:-1] + b"!")
    with pytest.raises(FixtureError, match="index_branch"):
        check_sums(tmp_path)


def test_it_is_asked_by_its_own_branch(model):
    assert settings_for(model, {}) == MsaSettings(
        scorer="index", topk=4, block=32, sink_blocks=0, local_blocks=1
    )


@pytest.mark.usefixtures("one_thread")
def test_text_within_a_percent_of_dense(model, corpus):
    """Of the dense model that it was converted from, at k 16."""
    dense = perplexity(load_model(str(EMBEDDED))[0], corpus, length=2048, windows=8)
    use_msa(model, settings_for(model, {"topk": 16}))
    sparse = perplexity(model, corpus, length=2048, windows=8)
    use_dense(model)
    assert sparse <= 1.01 * dense


@pytest.mark.usefixtures("one_thread")
def test_it_recalls_with_four_blocks(model, corpus):
    use_msa(model, settings_for(model, {}))
    found = recall_by_length(model, corpus, [2048], contexts=4, seed=11)
    use_msa(model, settings_for(model, {"scorer": "random"}))
    chance = recall_by_length(model, corpus, [2048], contexts=4, seed=11)
    use_dense(model)
    assert found[0].recall >= 0.9
    assert chance[0].recall <= 0.3
