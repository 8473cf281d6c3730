"""Checks of what stands around the operations: index branch, layer, paged cache, retrofit."""
