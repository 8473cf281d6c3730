"""What the documents leave open, what is assumed here, and which section shows what hangs on it.

A log, not a measurement: it stands with the sections so that it is kept, resumed and shown as
they are.
"""

from __future__ import annotations

from typing import Any

from msa_suites.reproduction.setup import Setup

#: Question, what the sources say, what is assumed here, how much hangs on it, section.
LOG: tuple[tuple[str, str, str, str, str], ...] = (
    (
        "What is the index dim Di?",
        "The paper prints none. Two documents find that only 128 gives 28.4 at a million tokens.",
        "128, wherever the 109B model is meant.",
        "The ceiling is inversely proportional to Di.",
        "cost",
    ),
    (
        "Is the million of the headline 1,000,000 or 2^20 tokens?",
        "Not said: 1M.",
        "2^20, like the other lengths; the round million stands beside it.",
        "In the third digit.",
        "cost",
    ),
    (
        "Does equation 12 count what is computed?",
        "It halves the quadratic terms for causality and charges every query k whole blocks.",
        "As written, with the exact count of causal pairs beside it.",
        "Large below 32K tokens, small at a million.",
        "cost",
    ),
    (
        "Which cache type gives 7.6 times at decoding?",
        "The measured speed-up on H800 is printed, the type of the index cache is not.",
        "bfloat16, with one byte an index element beside it.",
        "The limit of bytes read nearly doubles.",
        "cost",
    ),
    (
        "What is 'concentrated attention'?",
        "The CPU reproduction names two regimes and does not say how they were drawn, at what "
        "length, head dim, or with how many seeds.",
        "Keys keep to a topic of 96 tokens; a query is twice an earlier key with noise on it. "
        "8,192 tokens, head dim 64.",
        "Decisive: a sharper draw gives any share up to 1. The share is shown for other lengths, "
        "another head dim, sharper and duller queries, and real text.",
        "mass",
    ),
    (
        "Which blocks are forced?",
        "The paper's final recipe: the local block. The retrofit report: local block and first "
        "block, both counted in k.",
        "Both in the sections on recall, to compare with that report; the local block alone in "
        "the maps of the selection.",
        "Decisive at k 2, where two forced blocks leave no slot.",
        "budget",
    ),
    (
        "Which block size and length go with a small model?",
        "128 tokens and contexts of 4,096 to 16,384 for a 3B model.",
        "Blocks of 32 at 2,048 and 4,096 bytes, so that 64 and 128 blocks compete for k slots.",
        "k counts slots, so the floor does not move with the block; changes of perplexity do.",
        "budget",
    ),
    (
        "What are the twelve facts?",
        "Twelve distinct facts, scattered; neither wording nor number of contexts is given.",
        "Shipped items of a rigid pattern, which the embedded model was trained to answer.",
        "A retrieval probe, not language understanding: compare scorers, not levels.",
        "needles",
    ),
    (
        "How is text chosen for perplexity?",
        "'The same long documents'; no name.",
        "Held-out files of Python's documentation and library, perplexity per byte.",
        "Per byte and per token are different units: compare changes, not levels.",
        "budget",
    ),
    (
        "What does a training-free scorer score with?",
        "The mean of a group's query heads against the keys, max over the block.",
        "The same; mean-pool, Quest's bound, chance, the newest blocks and an oracle beside it.",
        "The order of the scorers is the finding; the levels are this model's.",
        "scorers",
    ),
    (
        "How is chance drawn?",
        "'Random block selection'; per query, per layer or per text is not said.",
        "Anew for each query, layer and group, from a seed.",
        "A dense first layer already changes the result.",
        "blindness",
    ),
    (
        "How was the wall clock measured?",
        "14.2 times on H800 at a million tokens; a gather in plain PyTorch on a 4090. Overlap of "
        "the selections, batch and warm-up are not said.",
        "One sequence, float32, both ends of the overlap, neighbouring calls compared.",
        "Large: kernel, device and overlap decide; operations alone do not.",
        "clock",
    ),
    (
        "What is the weight of the index branch's loss, lambda?",
        "Not published.",
        "1. Gradients of the index branch are clipped apart from the model's, and its optimiser "
        "divides by their size.",
        "None while the loss stops at the index branch; decisive where it does not.",
        "ablations",
    ),
    (
        "How long is the warm-up?",
        "40 billion of 3 trillion tokens from scratch, 40 of the last 400 in a conversion.",
        "200 of 800 steps of the conversion; from scratch the 400 steps up to 128 tokens, where "
        "four blocks of 32 are everything anyway.",
        "A longer share than theirs: in so few steps the branch must learn at all.",
        "ablations",
    ),
    (
        "At which k is a model trained?",
        "At 16, and it is used at 16. The retrofit report uses one model at several.",
        "From scratch at 4; in the conversion at 4 and 16 in turn, step by step, because it is "
        "read at both.",
        "Large. Converted at 4 alone, perplexity at k 16 was 1.3 % above the dense control's; the "
        "section has it with both, and pays at k 4. From scratch with both, one run was stopped at "
        "step 2,600, where 65 % of its answers in training were right, at 4 alone 97 %; why was "
        "not looked into.",
        "routes",
    ),
    (
        "How is the index branch optimised and started?",
        "Not said.",
        "AdamW at 5e-3, from a random start; the model's matrices with Muon.",
        "A start from the model's own projections was not tried.",
        "routes",
    ),
    (
        "How many tokens does a conversion take, and at which rate?",
        "400 billion after 2.6 trillion dense ones.",
        "1.9 million after 8.0 million, at half of the first peak rate, falling. The dense control "
        "goes on at the same steps and rates.",
        "Not measured as a series; both routes and the control have the same.",
        "routes",
    ),
    (
        "Which layers are sparse?",
        "MiniMax-M3: all but the first three of 60.",
        "All three of the embedded model.",
        "The first layer looks at its neighbours by construction, and loses nothing.",
        "routes",
    ),
    (
        "Can the trained branch keep more attention than the training-free scorer?",
        "Inferred in one document: at least as much.",
        "Compared on the same model with the same forced blocks, and with each recipe's own.",
        "Max-pooling bounds both: a branch that equals its teacher exactly does not rank blocks "
        "by their mass either.",
        "routes",
    ),
    (
        "What would it mean that groups specialise?",
        "One document asks whether it emerges at small scale; none defines it.",
        "Choices of two groups for one query differ more than those of one group for two "
        "neighbouring queries, and groups differ in what they look at, text after text.",
        "Another definition may answer otherwise; the distances are given.",
        "selection",
    ),
)


def measure(setup: Setup) -> dict[str, Any]:
    """The log as data."""
    del setup
    names = ("question", "sources", "assumed", "sensitivity", "section")
    return {"log": [dict(zip(names, entry, strict=True)) for entry in LOG]}
