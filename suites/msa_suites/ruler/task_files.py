"""lm-eval's file for a task of a folder."""

from __future__ import annotations

import json
from collections.abc import Sequence

from msa_suites.ruler.drawing import TASKS
from msa_suites.ruler.texts import TEXT_TASKS


def task_text(task: str, lengths: Sequence[int]) -> str:
    """The file of a task in YAML, with a metric for each length."""
    prefix, better = ("nll_", "false") if task in TEXT_TASKS else ("", "true")
    metrics = [
        line
        for length in lengths
        for line in (
            f'  - metric: "{prefix}{length}"',
            "    aggregation: mean",
            f"    higher_is_better: {better}",
        )
    ]
    lines = [f"task: {task}", *_body(task), "metric_list:", *metrics, "metadata:", "  version: 1.0"]
    return "\n".join([*lines, ""])


def _body(task: str) -> Sequence[str]:
    source = [
        "custom_dataset: !function msa_suites.ruler.lm_tasks.dataset",
        "dataset_kwargs:",
        f"  task: {task}",
        "test_split: test",
        "num_fewshot: 0",
    ]
    if task in TEXT_TASKS:
        return [
            *source,
            "output_type: loglikelihood",
            "doc_to_text: prompt",
            "doc_to_target: answer",
            'target_delimiter: ""',
            "process_results: !function msa_suites.ruler.lm_tasks.nll",
        ]
    score = "all_outputs" if TASKS[task].all_outputs else "any_output"
    return [
        *source,
        "output_type: generate_until",
        'doc_to_text: "{{input}}"',
        'doc_to_target: "{{outputs}}"',
        'gen_prefix: "{{gen_prefix}}"',
        f"target_delimiter: {json.dumps(TASKS[task].delimiter)}",
        f"process_results: !function msa_suites.ruler.lm_tasks.{score}",
        "generation_kwargs:",
        "  do_sample: false",
        "  temperature: 0.0",
        f"  max_gen_toks: {TASKS[task].answer}",
        "  until: []",
    ]
