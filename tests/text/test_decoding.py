"""The decode loop: what it writes is what generate() of transformers writes, in less work."""

from __future__ import annotations

import pytest
import torch

from llmstages.core.errors import StageError
from llmstages.text import decoding
from tests.tiny_architectures import BUILT, VOCABULARY, random_model

BY_THE_LOOP = ("llama", "qwen2", "qwen3", "gpt2", "mistral", "gemma2", "mixtral")
GREEDY = {"eos_token_id": list(range(2, 14)), "pad_token_id": 0, "do_sample": False}
SAMPLED = {**GREEDY, "do_sample": True, "temperature": 0.8, "top_k": 0, "top_p": 1.0}
NEW_TOKENS = 20


def prompts_of(seed=0, count=12, distinct=5):
    """Prompts of 1 to 11 tokens, of which most stand there several times."""
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 12, (distinct,), generator=draw).tolist()
    pool = [torch.randint(14, VOCABULARY, (n,), generator=draw).tolist() for n in lengths]
    return [pool[place % distinct] for place in range(count)]


def calls_of(model):
    """The shapes of ids that a model is called with from now on, a list that grows."""
    shapes = []
    model.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)),
        with_kwargs=True,
    )
    return shapes


def by_transformers(model, prompts, options):
    steps = decoding._Steps(len(prompts), NEW_TOKENS, None)
    with torch.no_grad():
        return decoding._generate(model, prompts, NEW_TOKENS, options, steps)


@pytest.mark.parametrize("architecture", BUILT)
def test_greedy_answers_are_those_of_transformers(architecture):
    model = random_model(architecture)
    assert decoding.can_decode(model) == (architecture in BY_THE_LOOP)
    prompts = prompts_of()
    rows, chances = decoding.decode(model, prompts, NEW_TOKENS, GREEDY)
    expected, expected_chances = by_transformers(model, prompts, GREEDY)
    assert rows == expected
    for ours, theirs in zip(chances, expected_chances, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)
    if architecture in BY_THE_LOOP:
        assert len({len(row) for row in rows}) > 1, "rows must end at different steps"


@pytest.mark.parametrize("seed", [0, 1])
def test_answers_are_sampled_by_their_probabilities(seed):
    model = random_model("llama")
    prompt = [9, 10, 11]
    with torch.no_grad():
        scores = model(input_ids=torch.tensor([prompt])).logits[0, -1]
    expected = (scores / 0.8).softmax(-1)
    torch.manual_seed(seed)
    rows, _ = decoding.decode(model, [prompt] * 4000, 1, SAMPLED)
    found = torch.bincount(torch.tensor([row[0] for row in rows]), minlength=VOCABULARY) / 4000
    # Four standard deviations of a share among 4000 draws.
    spread = 4 * (expected * (1 - expected) / 4000).sqrt() + 1e-3
    assert ((found - expected).abs() <= spread).all()


def test_a_token_without_probability_is_never_sampled():
    scores = torch.full((5000, 6), -torch.inf)
    scores[:, 2:4] = 0.0
    tokens, chances = decoding._choose(scores, SAMPLED)
    assert set(tokens.tolist()) == {2, 3} and set(chances.tolist()) == {0.5}


def test_a_model_whose_weights_are_broken_is_refused():
    model = random_model("llama")
    model.lm_head.weight.data[3] = float("nan")
    with pytest.raises(StageError, match="probabilities that are no numbers"):
        decoding.decode(model, [[9, 10]], 4, SAMPLED)


def test_each_distinct_prompt_is_read_once_and_rows_that_ended_leave():
    model = random_model("llama")
    prompts = prompts_of(count=16, distinct=4)
    shapes = calls_of(model)
    rows, _ = decoding.decode(model, prompts, NEW_TOKENS, GREEDY)
    longest = max(map(len, prompts))
    assert shapes[0] == (4, longest)
    assert shapes[1] == (16, 1)
    sizes = [size for size, _ in shapes[1:]]
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] < 16
    assert len(shapes) == max(map(len, rows)), "the last token is never read"


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma2"])
def test_a_row_is_what_it_is_alone(architecture):
    model = random_model(architecture)
    prompts = prompts_of(seed=1)
    together, _ = decoding.decode(model, prompts, NEW_TOKENS, GREEDY)
    for prompt, row in zip(prompts, together, strict=True):
        assert decoding.decode(model, [prompt], NEW_TOKENS, GREEDY)[0] == [row]


def test_adapters_are_used_and_progress_adds_up():
    from peft import LoraConfig, get_peft_model

    model = random_model("llama")
    prompts = prompts_of()
    plain, _ = decoding.decode(model, prompts, NEW_TOKENS, GREEDY)
    adapted = get_peft_model(model, LoraConfig(r=4, init_lora_weights=False)).eval()
    done = []
    rows, _ = decoding.decode(adapted, prompts, NEW_TOKENS, GREEDY, done.append)
    assert rows == by_transformers(adapted, prompts, GREEDY)[0] != plain
    assert sum(done) == len(prompts) and len(done) > 1


def test_a_row_that_is_complete_is_written_no_further():
    model, prompts = random_model("llama"), prompts_of()
    whole, _ = decoding.decode(model, prompts, NEW_TOKENS, GREEDY)
    last = whole[max(range(len(whole)), key=lambda place: len(whole[place]))][4]
    shapes = calls_of(model)
    rows, chances = decoding.decode(
        model, prompts, NEW_TOKENS, GREEDY, is_complete=lambda ids: last in ids
    )
    for row, full, of_row in zip(rows, whole, chances, strict=True):
        end = full.index(last) + 1 if last in full else len(full)
        assert row == full[:end] and len(of_row) == end
    assert rows != whole and len({rows for rows, _ in shapes}) > 1, "complete rows leave the batch"
