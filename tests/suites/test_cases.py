"""The table of cases is hostile, and a user's file is read or refused with reasons."""

import json

import pytest

from msa_suites.case import E4M3
from msa_suites.cases import CASES, Case, CaseError, case_named, cases_for, load_cases

QUICK = cases_for("correctness")


def test_names_are_unique():
    assert len({case.name for case in CASES}) == len(CASES)


def test_contexts_above_the_budget_exist_and_are_most():
    above = [case for case in QUICK if case.exceeds_budget]
    assert len(above) >= len(QUICK) - 2
    assert all(case.exceeds_budget for case in cases_for("speed", profile="full"))


def test_the_hostile_set_is_there():
    lengths = {n for case in QUICK for n in case.k_lens}
    assert {1, 127, 128, 129, 2047, 2048, 2049, 4097} <= lengths
    assert any(sum(case.q_lens) == case.Hq == case.Hkv for case in QUICK)
    assert any(0 in case.q_lens for case in QUICK)
    assert any(len(set(case.q_lens)) > 1 for case in QUICK)
    assert any(
        q < k and (k - q) % case.block
        for case in QUICK
        for q, k in zip(case.q_lens, case.k_lens, strict=True)
    )
    assert {1, 3, 8, 16} <= {case.group_size for case in QUICK}
    assert {32, 64, 128} <= {case.D for case in QUICK}
    assert {16, 32, 64, 128} <= {case.block for case in QUICK}
    assert {1, 2, 4, 8, 16} <= {case.topk for case in QUICK}
    assert {0, 1, 2} <= {case.sink_blocks for case in QUICK}
    assert {case.dtype for case in QUICK} == {"float32", "float16", "bfloat16", E4M3}
    kept = {(case.kv_dtype, case.index_dtype) for case in QUICK if case.dtype != E4M3}
    assert {("", ""), ("", E4M3), (E4M3, E4M3)} <= kept
    assert max(-(-k // case.block) for case in QUICK for k in case.k_lens) > 4096


def test_speed_covers_both_ends_of_overlap():
    prefill = cases_for("prefill", profile="full")
    assert {(case.k_lens, case.overlap) for case in prefill} == {
        (case.k_lens, overlap) for case in prefill for overlap in ("low", "high")
    }
    assert {case.overlap for case in cases_for("chunk")} == {"low", "high"}


def test_unknown_names_list_near_matches():
    with pytest.raises(ValueError, match="group-of-16"):
        case_named("group-of-61")
    with pytest.raises(ValueError, match=r"did you mean standard\?"):
        cases_for("speed", profile="standart")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q_lens": (5,), "k_lens": (4,)}, "q_lens: wanted lengths between 0 and"),
        ({"k_lens": (4, 4)}, "k_lens: wanted one length per sequence"),
        ({"q_lens": (0,)}, "at least one query"),
        ({"Hq": 3}, "Hq: wanted a multiple of Hkv"),
        ({"topk": 1, "sink_blocks": 1}, "topk: wanted at least"),
        ({"dtype": "float8"}, "dtype: wanted one of"),
        ({"overlap": "some"}, "overlap: wanted one of"),
        ({"weight": float("nan")}, "weight: wanted a finite number"),
        ({"block": 0}, "block: wanted an int above 0"),
        ({"name": ""}, "name: wanted a name"),
    ],
)
def test_a_senseless_case_is_refused(change, message):
    fields = {"name": "x", "q_lens": (4,), "k_lens": (4,), "Hq": 2, "Hkv": 2, "D": 8, "Di": 8}
    with pytest.raises(ValueError, match=message):
        Case(**(fields | change))


MINE = {"name": "mine", "q_lens": [4096], "Hq": 8, "Hkv": 2, "D": 64}


def write(tmp_path, *lines):
    path = tmp_path / "cases.jsonl"
    path.write_text("\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines))
    return path


def test_a_file_of_cases_is_read_with_defaults(tmp_path):
    path = write(tmp_path, "# mine", "", MINE | {"weight": 3}, MINE | {"name": "b", "tags": ["x"]})
    first, second = load_cases(path)
    assert (first.k_lens, first.Di, first.block, first.topk) == ((4096,), 64, 128, 16)
    assert (first.weight, second.tags) == (3.0, ("x",))
    assert load_cases(write(tmp_path, *(case.as_dict() for case in CASES))) == CASES


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"cases.jsonl:2: wanted a JSON object"),
        ("[1]", r"cases.jsonl:2: wanted a JSON object, got list"),
        (MINE | {"bloc": 3}, r":2: field 'bloc': .*did you mean block,"),
        (MINE | {"q_lens": 4096}, r":2: field 'q_lens': wanted a list of ints, got 4096"),
        (MINE | {"D": "64"}, r":2: field 'D': wanted an int, got '64'"),
        (MINE | {"D": True}, r":2: field 'D': wanted an int"),
        (MINE | {"weight": "much"}, r":2: field 'weight': wanted a number"),
        (MINE | {"dtype": 3}, r":2: field 'dtype': wanted a string"),
        (MINE | {"tags": "x"}, r":2: field 'tags': wanted a list of strings"),
        ({"name": "b"}, r":2: field 'q_lens': wanted name, q_lens"),
        (MINE | {"name": "b", "Hkv": 3}, r":2: Hq: wanted a multiple of Hkv \(3\), got 8"),
        (MINE, r":2: name: wanted a name of its own, got 'mine', which line 1 has"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    with pytest.raises(CaseError, match=message):
        load_cases(write(tmp_path, MINE, line))


def test_an_empty_or_missing_file_is_refused(tmp_path):
    with pytest.raises(CaseError, match="at least one case"):
        load_cases(write(tmp_path, ""))
    with pytest.raises(FileNotFoundError, match=r"nowhere\.jsonl"):
        load_cases(tmp_path / "nowhere.jsonl")
    (tmp_path / "cases.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(CaseError, match="UTF-8"):
        load_cases(tmp_path / "cases.jsonl")
