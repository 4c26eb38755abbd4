"""lm-eval's `local-completions` on a task file: loglikelihoods by echo, and generated answers."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"

from lm_eval import simple_evaluate
from lm_eval.models.openai_completions import LocalCompletionsAPI
from lm_eval.tasks import TaskManager

from tests.clients.agent import Agent

QUESTIONS = [
    ("The capital of France is", ["Paris", "a potato", "seven"], 0),
    ("The opposite of hot is", ["table", "cold", "Wednesday"], 1),
    ("Two plus two is", ["green", "a river", "four"], 2),
    ("A cat is a kind of", ["animal", "minute", "country"], 0),
]
CHOICE = """
task: tiny_choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: "{data}"}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""
WRITE = """
task: tiny_write
dataset_path: json
dataset_kwargs: {{data_files: {{test: "{data}"}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{choices[answer]}}}}"
generation_kwargs: {{until: ["\\n", "."], max_gen_toks: 8, do_sample: false}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
"""


@pytest.fixture
def results(agent: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    data = tmp_path / "questions.jsonl"
    rows = [{"question": question, "choices": choices, "answer": answer} for question, choices, answer in QUESTIONS]
    data.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    for name, text in (("choice", CHOICE), ("write", WRITE)):
        (tmp_path / f"{name}.yaml").write_text(text.format(data=data), encoding="utf-8")
    model = LocalCompletionsAPI(
        base_url=f"{agent.v1}/completions",
        model=agent.model,
        tokenizer=str(agent.bundle),
        tokenizer_backend="huggingface",
        max_length=2048,
        batch_size=2,
    )
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    return simple_evaluate(model=model, tasks=["tiny_choice", "tiny_write"], task_manager=manager, log_samples=True)


def test_both_kinds_of_task(results: Any) -> None:
    assert results["results"]["tiny_choice"]["acc,none"] >= 0.75  # a model of 135 M weights knows this much
    assert len(results["samples"]["tiny_write"]) == len(QUESTIONS)
    assert all(sample["resps"][0][0] for sample in results["samples"]["tiny_write"])
