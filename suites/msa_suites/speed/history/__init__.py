"""asv's view of the suites: the same case table, one class per kind of number.

asv knows only "lower is better", so shares are published as losses. The gate decides; asv shows.
"""
