"""The experiments of the documents about MSA, run on this repository's own models.

One module a section, with ``measure(setup) -> dict`` that returns plain data. How a section is
shown is the other half, under the same name, in :mod:`msa_reports.reproduction`.
"""

#: Name of a section -> its module. The order is that in which they are measured.
SECTIONS: dict[str, str] = {
    "cost": "msa_suites.reproduction.cost",
    "identity": "msa_suites.reproduction.identity",
    "mass": "msa_suites.reproduction.mass",
    "budget": "msa_suites.reproduction.budget",
    "needles": "msa_suites.reproduction.needles",
    "scorers": "msa_suites.reproduction.scorers",
    "blindness": "msa_suites.reproduction.blindness",
    "relatives": "msa_suites.reproduction.relatives",
    "ablations": "msa_suites.reproduction.ablations",
    "clock": "msa_suites.reproduction.clock",
    "selection": "msa_suites.reproduction.selection",
    "routes": "msa_suites.reproduction.routes",
    "assumptions": "msa_suites.reproduction.assumptions",
}
