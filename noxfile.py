"""The sessions of msa-bench; CI runs exactly these. `nox -l` lists them.

Positional arguments go to the command of a session: `nox -s gate -- --base v0.1.0`.
"""

from __future__ import annotations

import os
from pathlib import Path

import nox

nox.needs_version = ">=2025.10.14"
nox.options.sessions = ["lint", "types", "tests", "tests_whole"]
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"
nox.options.error_on_missing_interpreters = True

# uv does not read pip's variable for a folder of wheels.
os.environ.setdefault("UV_FIND_LINKS", os.environ.get("PIP_FIND_LINKS", ""))
# Every run starts many processes; compiling torch at each import would cost seconds a process.
os.environ["UV_COMPILE_BYTECODE"] = "1"

CONSTRAINTS = "constraints.txt"
HUB_PACKAGE = "tests/kernels/test_hub_package_runs.py"
SOURCES = ["msa", "kernels", "suites", "harness", "reports", "tests", "examples", "noxfile.py"]


def install(session: nox.Session, *packages: str) -> None:
    """Install through uv, ours or one put into the environment: minutes become seconds."""
    if session.venv_backend == "none":
        from_checkout(session)  # `nox --no-venv`: with what is here, such as a GPU machine's torch
        return
    if session.venv_backend == "uv":
        session.install("-c", CONSTRAINTS, *packages)
        return
    session.install("-c", CONSTRAINTS, "uv")
    session.run("python", "-m", "uv", "pip", "install", "-q", "-c", CONSTRAINTS, *packages)


def from_checkout(session: nox.Session) -> None:
    """Let Python find the packages of this checkout without installing them."""
    session.env["PYTHONPATH"] = os.pathsep.join(
        str(Path(folder).resolve()) for folder in (".", "kernels", "suites", "harness", "reports")
    )


def bench(session: nox.Session, *arguments: str) -> None:
    """Run an msa-bench command; `-P` keeps the current directory off the import path."""
    session.run("python", "-P", "-m", "msa_suites", *arguments)


@nox.session(default=False)
def gate(session: nox.Session) -> None:
    """The main job: measure the working tree against its base and say PASS or REGRESSION."""
    install(session, "-e", ".")
    bench(session, "gate", *session.posargs)


def run_tests(session: nox.Session, *arguments: str, **environment: str) -> None:
    """Run pytest on all cores. Who is done early takes over from the others: some tests are gates.

    Processes share the cores; threads inside each would fight over them.
    """
    session.run(
        *("python", "-P", "-m", "pytest", "-n", "auto", "--dist", "worksteal"),
        *arguments,
        *session.posargs,
        env={"OMP_NUM_THREADS": "1", **environment},
    )


@nox.session
def tests(session: nox.Session) -> None:
    """The project's own fast tests."""
    install(session, "-e", ".[asv,dev]")
    run_tests(session)


@nox.session(default=False)
def tests_whole(session: nox.Session) -> None:
    """The tests that run whole suites, gates, sites or pages; on every pull request."""
    install(session, "-e", ".[asv,dev]")
    run_tests(session, "-m", "whole and not slow")


@nox.session(default=False)
def kernels(session: nox.Session) -> None:
    """The kernels without a GPU: interpreted or simulated against the reference, and compiled."""
    install(session, "-e", ".[asv,dev,triton]")
    run_tests(
        session,
        *("tests/kernels/triton", "tests/kernels/gluon"),
        HUB_PACKAGE,
        # Interpreted it is the next test of that file.
        *("--deselect", f"{HUB_PACKAGE}::test_it_runs_where_the_project_is_not[torch-cuda]"),
        TRITON_INTERPRET="1",
    )


@nox.session(default=False)
@nox.parametrize("triton", ["3.6.0", "3.9.0"])  # the oldest that is known to work, and the newest
def aot(session: nox.Session, triton: str) -> None:
    """Every kernel compiled without a GPU: instructions, spills, registers, memory."""
    install(session, "-e", ".")
    session.install(f"triton=={triton}")
    bench(session, "aot", *session.posargs)


@nox.session(default=False)
def tests_slow(session: nox.Session) -> None:
    """The tests that take more than a few seconds each."""
    install(session, "-e", ".[asv,dev]")
    session.run("python", "-P", "-m", "pytest", "-m", "slow", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff, the direction of imports, and the workflow files."""
    install(session, "--no-deps", "-e", ".")
    install(session, "ruff", "import-linter", "check-jsonschema", "zizmor")
    session.run("ruff", "check", *SOURCES)
    session.run("ruff", "format", "--check", *SOURCES)
    session.run("lint-imports", "--no-logo")
    workflows = sorted(str(path) for path in Path(".github/workflows").glob("*.yml"))
    session.run("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *workflows)
    session.run(
        "check-jsonschema", "--builtin-schema", "vendor.dependabot", ".github/dependabot.yml"
    )
    session.run("zizmor", "--offline", "--quiet", "--persona=pedantic", ".github")


@nox.session
def types(session: nox.Session) -> None:
    """Strict mypy over all packages, which reads and does not run them."""
    session.env["UV_COMPILE_BYTECODE"] = "0"
    install(session, "-e", ".[asv,dev]")
    session.run("mypy")


@nox.session(default=False)
def correctness(session: nox.Session) -> None:
    """The conformance suite on one implementation (default: torch)."""
    install(session, "-e", ".")
    bench(session, "conformance", *session.posargs)


@nox.session(default=False)
def quality(session: nox.Session) -> None:
    """The quality suite on the working tree alone."""
    install(session, "-e", ".")
    bench(session, "check", "--suite", "quality", *session.posargs)


@nox.session(default=False)
def speed(session: nox.Session) -> None:
    """The speed table of the working tree: MSA against dense attention in one run."""
    install(session, "-e", ".")
    bench(session, "check", "--suite", "speed", *session.posargs)


@nox.session(default=False)
def micro(session: nox.Session) -> None:
    """Micro-benchmarks of single operations with pytest-benchmark."""
    install(session, "-e", ".")
    session.run(
        "python", "-P", "-m", "pytest", "--pyargs", "msa_suites.speed.micro", *session.posargs
    )


@nox.session(default=False)
def sweep(session: nox.Session) -> None:
    """Perplexity and recall against budget and scorer."""
    install(session, "-e", ".")
    bench(session, "sweep", *session.posargs)


@nox.session(default=False)
def reproduce(session: nox.Session) -> None:
    """The experiments of the documents about MSA: `nox -s reproduce -- --out DIR`."""
    install(session, "-e", ".")
    bench(session, "reproduce", *session.posargs)


@nox.session(default=False)
def faults(session: nox.Session) -> None:
    """The fault matrix: known faults put into the code, and the gate that catches each."""
    install(session, "-e", ".")
    bench(session, "faults", *session.posargs)


@nox.session(default=False)
def mutants(session: nox.Session) -> None:
    """Automatic changes of the method's code, and the share that the gate kills."""
    install(session, "-e", ".")
    bench(session, "mutants", *session.posargs)


@nox.session(default=False)
def calibrate(session: nox.Session) -> None:
    """False alarms and detectable effects of the gate on this machine."""
    install(session, "-e", ".")
    bench(session, "calibrate", *session.posargs)


@nox.session(default=False)
def train(session: nox.Session) -> None:
    """Train the embedded model again (about half an hour on two cores)."""
    install(session, "-e", ".")
    bench(session, "train", *session.posargs)


@nox.session(default=False)
def report(session: nox.Session) -> None:
    """Page, comment and plots of a recorded run."""
    install(session, "-e", ".")
    bench(session, "report", *session.posargs)


@nox.session(default=False)
def asv(session: nox.Session) -> None:
    """The asv history: `nox -s asv -- run`, `continuous`, `find`, `preview`."""
    install(session, "-e", ".[asv]")
    if "preview" in session.posargs:
        bench(session, "publish")  # the site that is looked at
    session.run("asv", *(session.posargs or ["--help"]))


@nox.session(default=False)
def publish(session: nox.Session) -> None:
    """Runs into the history over commits, and its site: `nox -s publish -- RUN`."""
    install(session, "-e", ".[asv]")
    bench(session, "publish", *session.posargs)


@nox.session(default=False)
def screenshots(session: nox.Session) -> None:
    """Pictures of the history, and of a run's report: `nox -s screenshots -- docs/images RUN`."""
    install(session, "-e", ".[asv,dev]")
    session.run("python", "tests/reports/screenshots.py", *session.posargs)


@nox.session(default=False)
def comment(session: nox.Session) -> None:
    """What the gates of a pull request said, as statuses and a comment; for its workflow."""
    # Not the whole project: the job that may write to the repository installs next to nothing.
    install(session, "requests", "jinja2")
    from_checkout(session)
    bench(session, "comment", *session.posargs)


@nox.session(default=False, venv_backend="none")
def gpu(session: nox.Session) -> None:
    """The GPU pass with the runner's own Python and torch, which every run records."""
    from_checkout(session)
    bench(session, "gpu", *session.posargs)
