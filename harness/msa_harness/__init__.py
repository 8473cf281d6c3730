"""How a change is measured and judged: records, timing, statistics, gates, verdicts.

The package knows callables and numbers, nothing of attention. Importing it is free of side effects
and of heavy imports, because the worker runs it inside the environment of the code under test,
which may hold nothing but torch.
"""
