"""What is measured: correctness, quality and speed of an MSA implementation."""

#: Name of a suite -> its module, which has ``measure(session)``. Cheap and decisive ones first.
SUITES: dict[str, str] = {
    "correctness": "msa_suites.correctness.suite",
    "method": "msa_suites.method.suite",
    "work": "msa_suites.speed.work_suite",
    "quality": "msa_suites.quality.suite",
    "speed": "msa_suites.speed.suite",
    "aot": "msa_suites.aot.suite",
}

#: Suites that run only where they are named: few implementations have what they judge.
ON_REQUEST = frozenset({"aot"})

#: Suites that read the clock: each runs alone, after all others.
TIMED = frozenset({"speed"})

#: Suites whose workers run a transformers model.
READS_MODEL = frozenset({"work", "quality"})
