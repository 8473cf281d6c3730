"""RULER's thirteen tasks and plain text, fitted to a model's tokenizer and kept in files."""

#: Haystacks by name; anything else is a text file.
HAYSTACKS = ("topics", "essays")
#: Data sets that questions are asked on, by the name of their option.
DATA_SETS = ("squad", "hotpotqa")
