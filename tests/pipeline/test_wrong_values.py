"""Wrong values and keys that nothing reads are refused by plan, before any work, with the key."""

from __future__ import annotations

import pytest

from llmstages.core.errors import StageError
from llmstages.pipeline.prepare import prepare

OUT_OF_RANGE = [  # (override, words of the message besides the key)
    ("pretrain.num_hidden_layers=0", "0, but it must be >= 1"),
    ("pretrain.hidden_size=-8", "-8, but it must be >= 1"),
    ("pretrain.num_attention_heads=0", "must be >= 1"),
    ("pretrain.max_length=1", "1, but it must be >= 2"),
    ("pretrain.max_position_embeddings=0", "must be >= 1"),
    ("pretrain.warmup_steps=-1", "must be >= 0"),
    ("pretrain.learning_rate=-1", "-1, but it must be >= 0"),
    ("pretrain.max_grad_norm=0", "must be > 0"),
    ("pretrain.ratio=0", "must be > 0"),
    ("pretrain.depth=-2", "must be >= 0"),
    ("pretrain.optimizer=sgdd", "is none of adamw, muon"),
    ("pretrain.learning_rate=inf", "inf, which is not a finite number"),
    ("tokenizer.vocab_size=10", "10 is below 271"),
    ("tokenizer.vocab_size=-5", "must be >= 1"),
    ("tokenizer.test_fraction=1.5", "must be"),
    ("tokenizer.min_frequency=-1", "must be >= 0"),
    ("rl.max_steps=-3", "must be >= 1"),
    ("rl.temperature=0", "must be > 0"),
    ("rl.temperature=-1", "must be > 0"),
    ("rl.temperature=nan", "nan, which is not a finite number"),
    ("rl.beta=-0.5", "must be >= 0"),
    ("rl.learning_rate=nan", "nan, which is not a finite number"),
    ("rl.learning_rate=0", "must be > 0"),
    ("rl.num_generations=1", "must be >= 2"),
    ("rl.max_completion_length=0", "must be >= 1"),
    ("rejection.num_generations=0", "must be >= 1"),
    ("sft.epochs=-1", "must be > 0"),
    ("sft.epochs=0", "must be > 0"),
    ("sft.lora_r=-1", "must be >= 0"),
    ("sft.lora_dropout=1.5", "must be"),
    ("sft.num_test=-1", "must be >= 0"),
    ("sft.batch_size=0", "must be >= 1"),
    ("sft.weight_decay=-0.1", "must be >= 0"),
    ("dpo.beta=0", "must be > 0"),
    ("dpo.label_smoothing=0.7", "must be"),
    ("dpo.test_fraction=1", "must be"),
    ("reward.test_fraction=-0.1", "must be"),
    ("reward.max_length=0", "must be >= 1"),
    ("knowledge.num_generations=0", "must be >= 1"),
    ("knowledge.known=1.2", "must be >= 0, <= 1"),
    ("knowledge.temperature=0", "must be > 0"),
    ("identity.test_fraction=1", "must be >= 0, < 1"),
    ("pages.frequent=4", "must be >= 8"),
    ("pages.dirt=-1", "must be >= 0"),
    ("pages.asked=2", "must be >= 0, <= 1"),
    ("preferences.right=-0.1", "must be >= 0, <= 1"),
    ("problems.digits=0", "must be >= 1"),
    ("corpus.filters.language.min_score=2", "must be >= 0, <= 1"),
    ("corpus.filters.minhash_dedup.bands=0", "must be >= 1"),
    ("corpus.max_depth=0", "must be"),
    ("tools.max_result=0", "must be >= 1"),
    ("evaluate.limit=-1", "must be >= 0"),
    ("memorization_eval.batch=0", "must be >= 1"),
    ("launch.processes=0", "must be"),
]
WITHOUT_MEANING = [  # (override, words of the message)
    ("+anything.x=1", "anything.x means nothing in this run"),
    ("+anything=1", "'anything' means nothing in this run"),
    ("anything=1", "there is no 'anything' in this run"),
    ("+rl.foo=1", "rl has no key 'foo'"),
    ("rl.foo=1", "rl has no key 'foo'"),
    ("+corpus.filters.url.foo=1", "has no key 'foo'"),
    ("+launch.foo=1", "has no key 'foo'"),
    ("steps.rl.nonsense=sft", "has no input 'nonsense'"),
    ("+steps.rl.nonsense=sft", "has no input 'nonsense'"),
    ("+sft@extra=chat", "adds a configuration but no step"),
    ("+steps.extra={}", "chooses no variant"),
    ("rl.samples=4", "rl.samples was renamed to rl.num_generations"),
    ("only=honest", "renamed to sft_refusal"),
]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("override, words", OUT_OF_RANGE)
def test_a_value_out_of_range_is_refused_with_its_key(override, words):
    key = override.partition("=")[0]
    with pytest.raises(StageError) as caught:
        prepare([override])
    message = str(caught.value)
    assert key.rpartition(".")[2] in message
    assert words in message


@pytest.mark.parametrize("override, words", WITHOUT_MEANING)
def test_a_key_that_nothing_reads_is_refused(override, words):
    with pytest.raises(StageError) as caught:
        prepare([override])
    assert words in str(caught.value)


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", "a/b", "..", "."])
def test_a_run_stays_in_its_folder(name):
    with pytest.raises(StageError, match="the name of a run is one folder under runs/"):
        prepare([f"name={name}"])
    with pytest.raises(StageError, match="the name of a run is one folder under runs/"):
        prepare([], name)


def test_a_step_added_on_the_command_line_runs_before_the_report():
    run = prepare(["recipe=smoke", "+sft@extra=chat", "+steps.extra={}"])
    names = [plan.step.name for plan in run.planned]
    assert names[-2:] == ["extra", "report"]
    report = run.find("report").step
    assert "extra" in [source.name for _, source in report.sources()]
