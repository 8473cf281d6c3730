"""Wall clock, and beside it the exact work that no noise can touch."""
