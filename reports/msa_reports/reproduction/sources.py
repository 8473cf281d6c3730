"""The documents whose claims are compared, by the names that the sections use."""

PAPER = "the paper"
RETROFIT = "the retrofit report"
OVERVIEW = "the overview article"
CPU = "the CPU reproduction"
NEWS = "the news item"
CARD = "the paper's card"

#: Name -> what it is.
DOCUMENTS: dict[str, str] = {
    PAPER: "arXiv 2606.13392v2, MiniMax Sparse Attention: the method, a 109B model, H800 timings.",
    RETROFIT: "“I bolted MiniMax's MSA sparse attention onto a 3B model on a single 4090”: "
    "selection rule without training in Qwen2.5-3B.",
    OVERVIEW: "“MSA: a Two-Branch Block-Sparse Attention Trained on a 109B-Parameter MoE”: "
    "summary of method, kernels and benchmarks.",
    CPU: "Equation 12 and the selector in about 120 lines of PyTorch, in two regimes of attention.",
    NEWS: "“Cuts Million-Token Compute by 28x Without Quality Loss”: asks whether groups "
    "specialise, and whether they do at small scale.",
    CARD: "Abstract and reproduction plan: “track assumptions and missing details in an "
    "experiment log”.",
}
