"""An artifact that is not ours is refused in words, and nothing of it is posted."""

from __future__ import annotations

import io
import json
import stat
import zipfile

import pytest
from fake_github import packed
from hypothesis import given, settings
from hypothesis import strategies as st
from left_behind import BASE, HEAD, archive, document, judged

from msa_harness.verdicts import Verdict
from msa_reports import artifact, comment


def link(name, target):
    entry = zipfile.ZipInfo(name)
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry, target


def zipped(*entries, method=zipfile.ZIP_STORED):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", method) as file:
        for name, content in entries:
            file.writestr(name, content)
    return data.getvalue()


GOOD = ("verdict.json", json.dumps(document()))
LARGE = b" " * (artifact.MAX_VERDICT + 1)
DEEP = "[" * 100_000


def one(**fields):
    return {**document(), "series": [{**document()["series"][0], **fields}]}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"no archive", "wanted a zip archive of a run, got a broken one"),
        (archive()[:-40], "wanted a zip archive of a run, got a broken one"),
        (packed({"report.md": "x"}), "wanted one verdict.json, got none"),
        (packed({"deeper/verdict.json": "{}"}), "wanted one verdict.json, got none"),
        (zipped(("../verdict.json", "{}"), GOOD), "got the path ../verdict.json"),
        (zipped(("/etc/passwd", "x"), GOOD), "got the path /etc/passwd"),
        (zipped(("a\\..\\b", "x"), GOOD), "wanted files of a run"),
        (zipped(link("verdict.json", "/etc/passwd")), "wanted plain files, got verdict.json"),
        (zipped(GOOD, link("run.json", "/dev/zero")), "wanted plain files, got run.json"),
        (zipped(GOOD, method=zipfile.ZIP_LZMA), "wanted plain files, got verdict.json"),
        (zipped(*[(f"{i}", "") for i in range(1001)]), "wanted at most 1000 files"),
        (packed({"verdict.json": LARGE}), "wanted at most 4,194,304 bytes, got 4,194,305"),
        (archive("{"), "verdict.json: Expecting"),
        (archive(b"\xff\xfe"), "verdict.json: "),
        (archive(DEEP), "verdict.json: "),
        (archive([]), "wanted an object with verdict and series"),
        (archive({**document(), "verdict": "FINE"}), "'FINE' is not a valid Verdict"),
        (archive({**document(), "verdict": "NEW"}), "wanted the verdict of a whole run"),
        (archive({**document(), "series": []}), "says PASS, and its series do not"),
        (archive({**document(Verdict.REGRESSION), "verdict": "PASS"}), "says PASS, and its"),
        (archive({**document(), "notes": 3}), "wanted a verdict of a run"),
        (archive({**document(), "notes": [3]}), "notes: wanted texts"),
        (archive({**document(), "series": [3]}), "series of a verdict"),
        (archive(one(name=["x"])), "name: wanted str"),
        (archive(one(base="1")), "base: wanted float"),
        (archive(one(base=float("nan"))), "base: wanted float"),
        (archive(one(base=10**400)), "wanted a verdict of a run"),
        (archive(one(n=1.5)), "n: wanted int"),
        (archive(one(surprise=1)), "unexpected keyword argument"),
    ],
)
def test_an_artifact_that_is_not_ours_is_refused_in_words(data, words, github):
    status, body = judged(github, data)
    assert status["state"] == "error"
    with pytest.raises(artifact.ArtifactError) as refused:
        artifact.read_archive(data)
    assert words in str(refused.value)
    assert status["description"].startswith("no verdict to believe: ")
    assert "!! ERROR" in body
    assert "repeat" not in body


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_spoilt_archive_is_read_or_refused_and_nothing_else(data):
    whole = bytearray(archive())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        outcome = artifact.read_archive(bytes(whole))
    except artifact.ArtifactError:
        return
    run = comment.GateRun("CPU", "c", "https://x", "success", outcome)
    assert comment.render([run], number=1, head=HEAD, base=BASE)
