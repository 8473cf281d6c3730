from __future__ import annotations

import gzip
import json
import re
import shutil
from itertools import pairwise

import numpy as np
import pytest

from msa_harness.clustered import proportion_loss_interval
from msa_suites.quality import items as items_module
from msa_suites.quality.errors import ItemsError
from msa_suites.quality.generate import HEAD_CLEAR, STRETCH, TAIL, TAIL_CLEAR, generate
from msa_suites.quality.items import (
    DATA,
    NLL_TASKS,
    PROFILES,
    RECALL_TASKS,
    TASKS,
    load_items,
    read_manifest,
    short_hash,
)


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(DATA, folder)
    items_module._load.cache_clear()
    yield folder
    items_module._load.cache_clear()


@pytest.fixture(scope="module")
def text():
    rng = np.random.default_rng(7)
    letters = np.frombuffer(b"abcdefghij kl\n", dtype=np.uint8)
    return letters[rng.integers(len(letters), size=120 * STRETCH)]


def documents(task, profile="full"):
    by_cluster = {}
    for item in load_items(task, profile=profile):
        by_cluster.setdefault(item.cluster, []).append(item)
    return by_cluster


@pytest.mark.parametrize("task", TASKS)
def test_shipped_file_has_what_the_manifest_says(task):
    entry = read_manifest()["tasks"][task]
    found = load_items(task, profile="full")
    assert len(found) == entry["items"]
    assert len({item.cluster for item in found}) == entry["documents"]
    assert len({item.hash for item in found}) == len(found)


@pytest.mark.parametrize("task", TASKS)
def test_profiles_are_nested(task):
    quick, standard, full = ([i.hash for i in load_items(task, profile=p)] for p in PROFILES)
    assert quick == standard[: len(quick)]
    assert standard == full[: len(standard)]
    assert 0 < len(quick) < len(standard) < len(full)


def test_shipped_files_are_small():
    assert sum(path.stat().st_size for path in DATA.iterdir()) < 1_500_000


def test_quick_profile_asks_twelve_facts_of_sixteen_contexts():
    items = load_items("msa_facts", profile="quick")
    assert (len(items), len({item.cluster for item in items})) == (192, 16)
    # One fact that a harmless change flips must not be a doubt.
    base = [1.0] * len(items)
    interval = proportion_loss_interval(
        base, [0.0, *base[1:]], [item.cluster for item in items], confidence=0.95
    )
    assert interval.high < 0.10


@pytest.mark.parametrize("task", TASKS)
def test_hash_is_of_the_content(task):
    item = load_items(task)[0]
    assert item.hash == short_hash(task, item.context, item.question, item.answer)
    assert item.hash != short_hash(task, item.context, item.question, item.answer + " ")


@pytest.mark.parametrize("task", RECALL_TASKS)
def test_the_answer_stands_in_the_context_once(task):
    for item in load_items(task, profile="full"):
        assert len(item.context) == item.length
        assert item.length in (2048, 4096, 8192)
        asked = item.question.rpartition("?")[2]
        key, _, given = asked.partition("=")
        values = re.findall(f"@{key}=(\\d\\d);", item.context)
        matching = [value for value in values if value.startswith(given)]
        assert matching == [given + item.answer]
        # The answer to this question is not among the answers to the earlier ones.
        assert f"?{key}=" not in item.question[: -len(asked) - 1]


@pytest.mark.parametrize("task", RECALL_TASKS)
def test_facts_are_spread_and_keep_clear_of_the_ends(task):
    depths = []
    for cluster in documents(task).values():
        context = cluster[0].context
        places = [match.start() for match in re.finditer("@", context)]
        assert min(places) >= HEAD_CLEAR
        assert max(places) < len(context) - TAIL_CLEAR
        depths += [place / len(context) for place in places]
    quarters = np.histogram(depths, bins=4, range=(0, 1))[0] / len(depths)
    assert quarters.min() > 0.12


def test_the_number_of_facts_is_that_of_the_task():
    facts = {task: load_items(task)[0].context.count("@") for task in RECALL_TASKS}
    assert facts == {
        "msa_niah_single": 1,
        "msa_niah_multikey": 6,
        "msa_niah_multivalue": 4,
        "msa_niah_multiquery": 8,
        "msa_facts": 12,
    }


def test_distractor_keys_share_a_letter():
    for cluster in documents("msa_niah_multikey").values():
        keys = re.findall("@(..)=", cluster[0].context)
        assert len({key[0] for key in keys}) == 1 or len({key[1] for key in keys}) == 1


def test_later_queries_repeat_the_earlier_ones_answered():
    for cluster in documents("msa_niah_multiquery").values():
        for before, after in pairwise(cluster):
            assert after.question.startswith(f"{before.question}{before.answer};?")


def test_tail_is_the_same_at_every_length():
    for cluster in documents("msa_tail_nll").values():
        assert len({item.answer for item in cluster}) == 1
        assert all(len(item.answer) == TAIL for item in cluster)
        assert len({item.length for item in cluster}) == len(cluster)
        assert all(cluster[-1].context.endswith(item.context) for item in cluster)


@pytest.mark.parametrize("task", NLL_TASKS)
def test_no_white_space_moves_from_prompt_to_answer(task):
    for item in load_items(task, profile="full"):
        assert item.prompt == item.prompt.rstrip()
        assert len(item.prompt) + len(item.answer) == item.length


def test_generation_is_a_function_of_seed_and_text(text):
    first = generate(text, seed=3)
    assert first == generate(text.copy(), seed=3)
    assert first != generate(text, seed=4)
    assert tuple(first) == TASKS
    everything = {doc["text"] for docs in first.values() for doc in docs}
    assert len(everything) == sum(map(len, first.values()))


def test_too_little_text_is_refused(text):
    with pytest.raises(ValueError, match=r"held_out: wanted 104 stretches .* got 50"):
        generate(text[: 50 * STRETCH])


def change_content(path):
    raw = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(raw.replace(b"quick", b"quirk", 1)))


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-100])


def flip_a_byte(path):
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    path.write_bytes(raw)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (change_content, "wanted content with sha256"),
        (cut_short, "corrupt"),
        (flip_a_byte, "corrupt|sha256"),
        (lambda path: path.write_bytes(b""), "corrupt|sha256"),
        (lambda path: path.unlink(), "no such file"),
    ],
)
def test_damaged_file_is_refused(data, damage, message):
    damage(data / "msa_facts.jsonl.gz")
    with pytest.raises(ItemsError, match=message):
        load_items("msa_facts", data=data)
    load_items("msa_perplexity", data=data)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        ("{", "wanted JSON"),
        ('{"schema": "another"}', "wanted schema"),
    ],
)
def test_wrong_manifest_is_refused(data, content, message):
    path = data / "manifest.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(ItemsError, match=message):
        load_items("msa_facts", data=data)


def test_file_unknown_to_the_manifest_is_refused(data):
    manifest = json.loads((data / "manifest.json").read_text())
    del manifest["tasks"]["msa_facts"]
    (data / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ItemsError, match="does not name them"):
        load_items("msa_facts", data=data)


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ValueError, match="task: wanted one of msa_niah_single"):
        load_items("msa_fact")
    with pytest.raises(ValueError, match="profile: wanted one of quick, standard, full"):
        load_items("msa_facts", profile="nightly")
