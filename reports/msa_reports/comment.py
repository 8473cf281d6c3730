"""What the gates of a pull request said: a commit status for each, and one comment.

The job that a verdict comes from ran the change's own code. So a verdict counts only where the end
of the job agrees with it, and every word of it is shown as text and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from msa_harness.verdicts import Outcome, Verdict
from msa_reports import markdown, summary
from msa_reports.text import clean
from msa_reports.text import markdown as as_text

MAX_DESCRIPTION = 140  # characters of a status on GitHub
_OPENING = f"{markdown.MARKER}\n## "  # of what markdown.render returns
_RESERVE = 4_000  # characters for what is not a gate's own report


class State(StrEnum):
    """A commit status as GitHub knows it."""

    SUCCESS = "success"
    FAILURE = "failure"
    ERROR = "error"
    PENDING = "pending"


#: The other verdicts are errors: they block a merge, and may be run again.
_STATES = {Verdict.PASS: State.SUCCESS, Verdict.REGRESSION: State.FAILURE}


@dataclass(frozen=True, slots=True)
class GateRun:
    """One gate of a change as its newest run left it.

    Attributes:
        title: What people call it, "CPU".
        context: Name of its status.
        url: Page of the run.
        conclusion: How the run ended in GitHub's words, None while it has not.
        outcome: Its verdict, None where there is none to be believed.
        problem: Why there is none.
    """

    title: str
    context: str
    url: str
    conclusion: str | None
    outcome: Outcome | None = None
    problem: str = ""

    @property
    def state(self) -> State:
        """The status that this run deserves."""
        if self.conclusion is None:
            return State.PENDING
        if self.outcome is None or self._doubt:
            return State.ERROR
        return _STATES.get(self.outcome.verdict, State.ERROR)

    @property
    def description(self) -> str:
        """Why, in one line that a status has room for."""
        if self.conclusion is None:
            text = "not finished, or waits for approval"
        elif self._doubt or self.outcome is None:
            text = self._doubt or "the run left no verdict"
        else:
            text = f"{self.outcome.verdict.label}: {summary.headline(self.outcome)}"
        shown = clean(text)
        return shown if len(shown) <= MAX_DESCRIPTION else f"{shown[: MAX_DESCRIPTION - 3]}..."

    @property
    def report(self) -> Outcome | None:
        """The outcome to show: one that nothing speaks against."""
        return None if self.conclusion is None or self._doubt else self.outcome

    @property
    def _doubt(self) -> str:
        """What speaks against the verdict, empty where nothing does."""
        if self.conclusion not in ("success", "failure"):
            return f"the run ended as {self.conclusion}"
        if self.problem or self.outcome is None:
            return self.problem
        if (self.outcome.verdict is Verdict.PASS) == (self.conclusion == "success"):
            return ""
        return f"the run ended as {self.conclusion}, its verdict says {self.outcome.verdict.label}"


def render(runs: Sequence[GateRun], *, number: int, head: str, base: str) -> str:
    """Return the comment as GitHub Markdown; its first line is `markdown.MARKER`.

    Args:
        runs: the gates, at least one.
        number: of the pull request.
        head: the commit that was judged.
        base: the commit of the base branch.
    """
    limit = (markdown.LIMIT - _RESERVE) // len(runs)
    sections = [_section(run, limit) for run in runs]
    text = f"{markdown.MARKER}\n" + "\n".join(sections)
    text += f"\nJudged: {head[:10]} merged into {base[:10]}. "
    text += "Thresholds, items and suites are the base's.\n"
    if any(run.report is not None for run in runs):
        text += (
            "\nThe commands above run in a checkout of the base, with the change beside it:\n\n"
            f"```sh\ngit checkout {base[:10]}\ngit fetch origin pull/{number}/merge && "
            "git worktree add ../head FETCH_HEAD\n```\n"
        )
    return text


def _section(run: GateRun, limit: int) -> str:
    link = f"[the run]({run.url})"
    if run.report is not None:
        shown = markdown.render(run.report, limit=limit).removeprefix(_OPENING)
        return f"## {run.title}: {shown}\nFiles and page of this gate: {link}.\n"
    mark = "…" if run.state is State.PENDING else "!!"
    why = as_text(run.description)
    return f"## {run.title}: {mark} {run.state.upper()}: {why}\n\nMore is on {link}.\n"
