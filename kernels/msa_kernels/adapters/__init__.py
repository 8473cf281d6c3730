"""Adapters to implementations that were written elsewhere. Each imports its own when called."""
