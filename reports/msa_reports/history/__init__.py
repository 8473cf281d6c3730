"""The history over commits: runs as tracks of asv, its site without a network, and an overview."""
