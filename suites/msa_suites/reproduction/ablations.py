"""What each part of MSA's training and selection is worth: short conversions of one dense model."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from msa_suites.models.architecture import VOCABULARY
from msa_suites.models.attention import Network
from msa_suites.models.training_plan import IndexPlan
from msa_suites.reproduction.ablations_compare import summary
from msa_suites.reproduction.ablations_plan import EXPERIMENTS, QUICK, Sizes
from msa_suites.reproduction.ablations_reading import corpus
from msa_suites.reproduction.ablations_runs import Start, read_start, run
from msa_suites.reproduction.setup import CannotRun, Setup, load


def measure(setup: Setup) -> dict[str, Any]:
    """Every experiment with every seed, and what differs from the base.

    Runs that an interrupted measurement has left in ``setup.out`` are taken over where their whole
    plan is the same.
    """
    from msa_suites.reproduction.running import describe

    sizes = QUICK if setup.quick else Sizes()
    about = describe(setup)
    model = _trainable(load(setup)[0])
    sha256 = about["model"]["sha256"] or about["model"]["name"]
    start = Start(model=model, about=about, sha256=sha256, corpus=corpus())
    runs: dict[str, list[dict[str, Any]]] = {one.name: [] for one in EXPERIMENTS}
    total = len(EXPERIMENTS) * sizes.seeds
    # Seed by seed, so that an interrupted measurement has whole seeds.
    for turn in range(sizes.seeds):
        seed = setup.seed + turn
        for number, experiment in enumerate(EXPERIMENTS, start=1 + turn * len(EXPERIMENTS)):
            setup.say(f"ablations: {experiment.name}, seed {seed} ({number}/{total})")
            runs[experiment.name].append(run(setup, start, experiment, sizes, seed=seed))
    setup.say("ablations: the dense model")
    return {
        "sizes": asdict(sizes),
        "index": asdict(IndexPlan(warmup=sizes.warmup)),
        "seeds": [setup.seed + turn for turn in range(sizes.seeds)],
        "start": read_start(setup, start, sizes),
        **summary(runs),
        "runs": [one for several in runs.values() for one in several],
    }


def _trainable(model: Network) -> Network:
    """The model, where it reads bytes in layers of full attention.

    Raises:
        CannotRun: it does not.
    """
    config = model.config
    if config.vocab_size != VOCABULARY or config.model_type != "qwen2":
        raise CannotRun(
            "it trains on bytes, so it needs a model like the embedded one: Qwen2 with "
            f"{VOCABULARY} tokens; got {config.model_type} with {config.vocab_size}"
        )
    return model
