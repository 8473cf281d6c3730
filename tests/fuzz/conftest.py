"""How many cases the fuzzing of a session went through, at its end."""

from __future__ import annotations


def pytest_terminal_summary(terminalreporter):
    counted: dict[str, int] = {}
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            if report.when == "call" and name.startswith("fuzz "):
                counted[name] = counted.get(name, 0) + value
    cases = {name: n for name, n in counted.items() if name != "fuzz steps"}
    if cases:
        terminalreporter.section("fuzzing")
        for name, n in sorted(cases.items()):
            terminalreporter.write_line(f"{n:7,} {name.removeprefix('fuzz ')}")
        steps = counted.get("fuzz steps", 0)
        terminalreporter.write_line(
            f"{sum(cases.values()):7,} cases in all; the state machines took {steps:,} steps"
        )
