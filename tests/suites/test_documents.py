"""What the README and the guides say: links lead somewhere, commands are commands."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest

from msa_suites import cli

ROOT = Path(__file__).resolve().parents[2]
GUIDES = ROOT / "docs"
#: Documents with commands; links are followed in all of them.
PAGES = [ROOT / "README.md", *sorted(GUIDES.glob("*.md")), ROOT / "examples/kernel_team/README.md"]
LINKED = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "DESIGN.md"]
#: Languages of a fence that is no command: what a command printed, or another language.
NOT_COMMANDS = {"text", "python", "toml", "mermaid", "dockerfile", "json"}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def name(path):
    return str(path.relative_to(ROOT))


def without_code(text):
    """The text without fences and code spans: what looks like a link there is none."""
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", text))


def links(text):
    prose = without_code(text)
    inline = re.findall(r"\]\(([^)\s]+)\)", prose)
    return inline + re.findall(r"^\[[^\]]+\]: (\S+)$", prose, re.MULTILINE)


def anchors(text):
    """The anchors that GitHub gives to a page's headings."""
    found = set()
    for heading in re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        again = sum(one == slug or one.startswith(f"{slug}-") for one in found)
        found.add(f"{slug}-{again}" if slug in found else slug)
    return found


def leads_nowhere(page, target):
    """Why a link of ``page`` does not resolve, "" where it does."""
    path, _, anchor = target.partition("#")
    file = (page.parent / path).resolve() if path else page
    if not file.is_relative_to(ROOT) or not file.exists():
        return f"{target}: no such file"
    if anchor and file.suffix == ".md" and anchor not in anchors(file.read_text(encoding="utf-8")):
        return f"{target}: no such heading"
    return ""


def commands(text):
    """The simple commands of the code blocks that may concern us, as words without comments."""
    for language, block in FENCE.findall(text):
        if language in NOT_COMMANDS:
            continue
        for line in block.replace("\\\n", " ").splitlines():
            if re.search(r"\b(msa-bench|msa_suites|nox)\b", line):
                yield from _simple(line)


def _simple(line):
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|<>")
    lexer.whitespace_split = True
    words = []
    for word in [*lexer, ";"]:
        if set(word) <= set(";&|<>"):
            if words:
                yield words
            words = []
        else:
            words.append(word)


def sessions():
    """The sessions of the noxfile, and the words of msa-bench that each calls ([] for none)."""
    found = {}
    for node in ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8")).body:
        marks = [ast.unparse(one) for one in getattr(node, "decorator_list", ())]
        if not any(mark.startswith("nox.session") for mark in marks):
            continue
        calls = [
            [one.value for one in call.args[1:] if isinstance(one, ast.Constant)]
            for call in ast.walk(node)
            if isinstance(call, ast.Call)
            and ast.unparse(call.func) == "bench"
            and any(isinstance(one, ast.Starred) for one in call.args)
        ]
        found[node.name] = calls[0] if calls else []
    return found


def bench_arguments(words):
    """The arguments for msa-bench in a command of any kind, None where it calls something else."""
    for one in words:
        if "msa-bench " in one:  # sh -c '...'
            return next(filter(None, map(bench_arguments, _simple(one))), None)
    if "msa-bench" in words:
        return words[words.index("msa-bench") + 1 :]
    if words[-2:] != ["-m", "msa_suites"] and "msa_suites" in words:
        return words[words.index("msa_suites") + 1 :]
    if "nox" in words:
        return nox_arguments(words[words.index("nox") + 1 :])
    return None


def nox_arguments(words):
    before, after = words, []
    if "--" in words:
        before, after = words[: words.index("--")], words[words.index("--") + 1 :]
    if "-s" not in before:
        return None
    known = sessions()
    named = [one for one in before[before.index("-s") + 1 :] if not one.startswith("-")]
    for one in named:
        assert one in known, f"nox -s {one}: no such session"
    return known[named[0]] + after if known[named[0]] else None


def parses(arguments):
    """Whether the real parser takes these arguments."""
    command = next((one for one in arguments if one in cli.COMMANDS), None)
    try:
        cli.build_parser(only=command or "list").parse_args(arguments)
    except SystemExit as stop:
        return stop.code in (0, None)
    return True


@pytest.mark.parametrize("page", LINKED, ids=name)
def test_every_link_of_a_page_leads_somewhere(page):
    relative = [
        target
        for target in links(page.read_text(encoding="utf-8"))
        if not re.match(r"[a-z]+:", target)
    ]
    assert [why for target in relative if (why := leads_nowhere(page, target))] == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_command_of_a_page_is_one(page, capsys):
    for words in commands(page.read_text(encoding="utf-8")):
        arguments = bench_arguments(words)
        if arguments is not None:
            assert parses(arguments), f"{shlex.join(words)}\n{capsys.readouterr().err}"


def test_the_commands_are_found():
    """As many as a reader sees; a parser that finds none would pass everything."""
    found = [words for page in PAGES for words in commands(page.read_text(encoding="utf-8"))]
    bench = {tuple(one) for words in found if (one := bench_arguments(words)) is not None}
    assert len(bench) > 50
    # But the comment, which its workflow calls.
    assert {one[0] for one in bench} >= cli.COMMANDS.keys() - {"comment", "train"}


@pytest.mark.parametrize("command", ["gate", "tests"])
def test_the_two_commands_of_the_readme_are_those_that_ci_runs(command):
    line = f"nox && nox -s {command}"
    assert f"\npython -m pip install {line} " in (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"\npython -m pip install --quiet {line}" in (ROOT / ".ci/run").read_text()


def test_every_guide_is_in_the_index():
    listed = set(links((GUIDES / "README.md").read_text(encoding="utf-8")))
    assert {page.name for page in GUIDES.glob("*.md")} - {"README.md"} <= listed


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("docs/README.md", ""),
        ("docs/nowhere.md", "no such file"),
        ("docs/read-a-verdict.md#the-page", ""),
        ("docs/read-a-verdict.md#the-pages", "no such heading"),
        ("#results", ""),
        ("../outside.md", "no such file"),
    ],
)
def test_a_link_that_leads_nowhere_is_found(target, why):
    assert leads_nowhere(ROOT / "README.md", target).endswith(why)
    assert bool(leads_nowhere(ROOT / "README.md", target)) == bool(why)


@pytest.mark.parametrize(
    ("line", "good"),
    [
        ("msa-bench gate --base HEAD~1    # a comment", True),
        ("TRITON_INTERPRET=1 msa-bench list faults && true", True),
        ("nox -s gate -- --suite work", True),
        ("git bisect run sh -c 'msa-bench gate --bisect; exit $?'", True),
        ("PYTHONPATH=. python -P -m msa_suites gpu --lengths 1024", True),
        ("msa-bench gates", False),
        ("msa-bench gate --bases HEAD~1", False),
        ("nox -s gate -- --suites work", False),
        ("git bisect run sh -c 'msa-bench gate --bisected; exit $?'", False),
        ("python -P -m msa_suites gpu --lengths many", False),
    ],
)
def test_a_command_that_is_none_is_found(line, good, capsys):
    arguments = next(filter(None, map(bench_arguments, commands(f"```\n{line}\n```\n"))), None)
    assert arguments is not None
    assert parses(arguments) == good, capsys.readouterr().err
