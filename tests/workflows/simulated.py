"""Jobs of our workflow files without GitHub: their shell steps run in order, actions are copies.

Not simulated: containers, approvals, tokens' permissions, and what nox would install (sessions run
with the packages that are here).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import expressions
import yaml

REPOSITORY = Path(__file__).parents[2]
WORKFLOWS = REPOSITORY / ".github" / "workflows"

# Stands in for nox: the real one, the real noxfile, the packages that are here. `stand_ins` names
# sessions that are too long: options to drop and to add, or a script in the place of the session.
_NOX = """#!{python}
import json, subprocess, sys
given = sys.argv[1:]
with open({log!r}, "a") as log:
    log.write(json.dumps(given) + "\\n")
session = given[given.index("-s") + 1]
own = [a for i, a in enumerate(given) if not a.startswith(("--no-venv", "--force-venv-backend"))
       and given[i - 1] != "--force-venv-backend"]
nox = [{python!r}, "-P", "-m", "nox", "--no-venv"]
here = json.loads({stand_ins!r}).get(session, {{}})
if "script" in here:
    noxfile = own[own.index("-f") + 1:][:1] if "-f" in own else ["noxfile.py"]
    listed = subprocess.run([*nox, "-f", *noxfile, "--list"], capture_output=True, text=True)
    assert f" {{session}}" in listed.stdout, listed.stdout + listed.stderr
    sys.exit(subprocess.run(["bash", "-ec", here["script"]]).returncode)
drop = here.get("drop", [])
kept = [a for i, a in enumerate(own) if a not in drop and own[i - 1] not in drop]
sys.exit(subprocess.run([*nox, *kept, *here.get("more", [])]).returncode)
"""
# Stands in for python: pip may name what is pinned, and installs nothing.
_PYTHON = """#!{python}
import os, sys
if sys.argv[1:4] == ["-m", "pip", "install"]:
    constraints, *packages = sys.argv[sys.argv.index("--constraint") + 1:]
    text = "\\n" + open(constraints).read()
    missing = [p for p in packages if f"\\n{{p}}==" not in text]
    sys.exit(f"not pinned: {{missing}}" if missing else 0)
os.execv({python!r}, [{python!r}, *sys.argv[1:]])
"""


def read(name):
    """A workflow file; YAML takes its ``on`` for a truth value."""
    document = yaml.safe_load((WORKFLOWS / name).read_text())
    document["on"] = document.pop(True)
    return document


@dataclass
class Ended:
    """How a job ended."""

    conclusion: str
    said: str
    summary: str
    artifacts: dict[str, Path]
    environment: str | None
    runs_on: object
    nox: list[list[str]] = field(default_factory=list)


class Runner:
    """A machine that takes one job after the other, each with a folder of its own.

    Args:
        folder: for everything.
        origin: repository that is checked out.
        stand_ins: session -> what is done in its place.
        environment: more variables of the machine.
    """

    def __init__(self, folder, origin, *, stand_ins=None, environment=None):
        self.folder, self.origin = folder, origin
        self.environment = environment or {}
        self.artifacts = {}
        self.log = folder / "nox.log"
        self._tools = folder / "tools"
        self._tools.mkdir(parents=True)
        for name, text in (("nox", _NOX), ("python", _PYTHON)):
            values = {"python": sys.executable, "log": str(self.log)}
            path = self._tools / name
            path.write_text(text.format(**values, stand_ins=json.dumps(stand_ins or {})))
            path.chmod(0o755)

    def run(self, workflow, job, github, *, inputs=None, matrix=None):
        """Run the steps of one job; None where its ``if`` keeps it from running."""
        document = read(workflow)
        about = document["jobs"][job]
        contexts = {"status": "success", "github": github, "inputs": inputs or {}}
        contexts |= {"matrix": matrix or {}}
        if not expressions.condition(about.get("if"), contexts):
            return None
        workspace = self.folder / f"{workflow}-{job}-{len(list(self.folder.iterdir()))}"
        workspace.mkdir()
        self.log.write_text("")
        summary = workspace.with_suffix(".summary")
        said = []
        for step in about["steps"]:
            if not expressions.condition(step.get("if"), contexts):
                continue
            code, text = self._step(step, contexts, workspace, summary)
            said.append(text)
            if code:
                contexts["status"] = "failure"
        return Ended(
            contexts["status"],
            "\n".join(said),
            summary.read_text() if summary.exists() else "",
            dict(self.artifacts),
            expressions.interpolate(about.get("environment"), contexts),
            expressions.interpolate(about["runs-on"], contexts),
            [json.loads(line) for line in self.log.read_text().splitlines()],
        )

    def _step(self, step, contexts, workspace, summary):
        assert set(step) <= {"name", "if", "uses", "with", "run", "env"}, step
        options = {
            key: expressions.shown(expressions.interpolate(value, contexts))
            for key, value in step.get("with", {}).items()
        }
        if "uses" in step:
            action = re.fullmatch(r"actions/([\w-]+)@[0-9a-f]{40}", step["uses"])
            assert action, f"not simulated: {step['uses']}"
            return getattr(self, "_" + action[1].replace("-", "_"))(options, contexts, workspace)
        assert "${{" not in step["run"], step["run"]
        more = {
            key: expressions.shown(expressions.interpolate(value, contexts))
            for key, value in step.get("env", {}).items()
        }
        done = subprocess.run(
            ["bash", "-e", "-c", step["run"]],
            cwd=workspace,
            env=self._variables(contexts, summary) | more,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=500,
        )
        return done.returncode, done.stdout

    def _variables(self, contexts, summary):
        path = os.pathsep.join([str(self._tools), str(Path(sys.executable).parent), os.defpath])
        return {
            **{"PATH": path, "HOME": str(self.folder), "CI": "true", "OMP_NUM_THREADS": "1"},
            "GITHUB_STEP_SUMMARY": str(summary),
            "GITHUB_SERVER_URL": "https://github.com",
            "GITHUB_REPOSITORY": "msa-bench/msa-bench",
            "GITHUB_SHA": str(contexts["github"].get("sha")),
            **self.environment,
        }

    def _checkout(self, options, contexts, workspace):
        assert options["persist-credentials"] == "false"
        ref = options.get("ref") or contexts["github"]["sha"]
        place = workspace / options.get("path", ".")
        subprocess.run(["git", "clone", "-q", "--shared", self.origin, place], check=True)
        done = subprocess.run(
            ["git", "-C", place, "checkout", "-q", "--detach", ref], capture_output=True, text=True
        )
        return done.returncode, done.stderr

    def _setup_python(self, options, _contexts, _workspace):
        assert set(options) == {"python-version"}  # a cache would cross the border of trust
        return 0, ""

    def _upload_artifact(self, options, _contexts, workspace):
        patterns = options["path"].split("\n")
        found = [one for pattern in patterns if pattern for one in workspace.glob(pattern)]
        if not found:
            assert options["if-no-files-found"] == "error"
            return 1, "No files were found with the provided path"
        place = self.folder / "artifacts" / options["name"]
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        for one in found:
            shutil.copy(one, place)
        self.artifacts[options["name"]] = place
        return 0, ""

    def _download_artifact(self, options, _contexts, workspace):
        shutil.copytree(self.artifacts[options["name"]], workspace / options["path"])
        return 0, ""
