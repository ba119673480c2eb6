"""Replies: calls are run, their results go into the next prompt; batches keep their order."""

from __future__ import annotations

import pytest

from llmstages.text import chat_format, decoding, generate
from llmstages.text.messages import message
from tests.tiny import tiny_model, tiny_tokenizer

QUESTION = [message("user", "Where was Bo Li born?")]


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


def scripted(tokenizer, rounds):
    """A stand-in for generate() that returns the texts of one round after another.

    Returns the function and the list in which it records its prompts.
    """
    prompts = []

    def generate(model, tokenizer_, batch, **_):
        prompts.append([tokenizer.decode(prompt) for prompt in batch])
        texts = rounds[len(prompts) - 1]
        ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        return ids, [0.5] * len(batch)

    return generate, prompts


def test_a_call_is_run_and_its_result_is_read(tokenizer, monkeypatch):
    scripted_generate, prompts = scripted(
        tokenizer, [["<SEARCH_START> Bo Li<SEARCH_END>", " I know.<|im_end|>"], [" Ra.<|im_end|>"]]
    )
    monkeypatch.setattr(generate, "generate", scripted_generate)
    replies = generate.reply(
        None, tokenizer, [QUESTION, QUESTION], {"search": lambda query: f"{query} was born in Ra."}
    )
    assert [m["content"] for m in replies[0].messages] == ["Bo Li", "Bo Li was born in Ra.", "Ra."]
    assert replies[0].text == "Ra." and replies[0].ended and replies[0].calls[0]["tool"] == "search"
    assert replies[1].text == "I know." and not replies[1].calls and len(prompts[1]) == 1
    assert prompts[1][0].endswith("<RESULT_START> Bo Li was born in Ra.<RESULT_END>")


def test_without_tools_a_call_ends_the_reply(tokenizer, monkeypatch):
    scripted_generate, _ = scripted(tokenizer, [["<SEARCH_START> Bo Li<SEARCH_END>"]])
    monkeypatch.setattr(generate, "generate", scripted_generate)
    (reply,) = generate.reply(None, tokenizer, [QUESTION])
    assert reply.text == "" and not reply.ended and len(reply.messages) == 1


def test_calls_are_limited(tokenizer, monkeypatch):
    scripted_generate, prompts = scripted(tokenizer, [["<CALC_START>1+1<CALC_END>"]] * 9)
    monkeypatch.setattr(generate, "generate", scripted_generate)
    generate.reply(None, tokenizer, [QUESTION], {"calculator": lambda text: "2"}, max_calls=2)
    assert len(prompts) == 3


def test_batches_keep_order_and_padding_changes_nothing(tokenizer):
    model = tiny_model(tokenizer)
    prompts = chat_format.document_ids(
        tokenizer, ["the cat", "the dog ran far. Bo Li was born", "a"]
    )
    together, _ = generate.generate(model, tokenizer, prompts, max_new_tokens=6, batch=3)
    alone = [generate.generate(model, tokenizer, [p], max_new_tokens=6)[0][0] for p in prompts]
    assert together == alone


def test_a_long_prompt_keeps_its_bos_and_leaves_room():
    assert generate.fit_prompt([1, 2, 3], 10, 4) == [1, 2, 3]
    assert generate.fit_prompt(list(range(20)), 10, 4) == [0, 15, 16, 17, 18, 19]


def test_a_long_neighbour_takes_nothing_from_the_others(tokenizer):
    model = tiny_model(tokenizer)
    short, long = chat_format.document_ids(tokenizer, ["the cat", "the dog ran far " * 80])
    alone, _ = generate.generate(model, tokenizer, [short], max_new_tokens=8)
    both, _ = generate.generate(model, tokenizer, [short, long], max_new_tokens=8)
    assert both[0] == alone[0] and len(both[1]) > 0
    replies = generate.reply(
        model, tokenizer, [QUESTION, [message("user", "far " * 300)]], max_new_tokens=8
    )
    assert [r.cut for r in replies] == [False, True]


def test_confidence_is_the_least_likely_token(tokenizer):
    import torch

    model = tiny_model(tokenizer)
    prompt = chat_format.document_ids(tokenizer, ["the cat"])[0]
    (new_ids,), (confidence,) = generate.generate(model, tokenizer, [prompt], max_new_tokens=4)
    with torch.no_grad():
        probabilities = model(torch.tensor([prompt + new_ids])).logits[0].softmax(-1)
    places = range(len(prompt) - 1, len(prompt) - 1 + len(new_ids))
    own = [probabilities[i, token].item() for i, token in zip(places, new_ids, strict=True)]
    assert confidence == pytest.approx(min(own), abs=1e-4)


def test_progress_moves_within_a_batch_and_counts_every_prompt_once(tokenizer):
    model = tiny_model(tokenizer)
    prompts = chat_format.document_ids(tokenizer, ["the cat"] * 5)
    seen: list[float] = []
    generate.generate(model, tokenizer, prompts, max_new_tokens=8, batch=3, advance=seen.append)
    assert sum(seen) == 5 and len(seen) > 2, "more often than once a batch"
    assert all(count == int(count) > 0 for count in seen)


def test_scores_of_all_steps_are_never_kept(tokenizer, monkeypatch):
    """The memory of a long reply over a real vocabulary would be many gigabytes."""
    model = tiny_model(tokenizer)
    asked: dict[str, object] = {}
    plain = model.generate

    def spy(**arguments):
        asked.update(arguments)
        return plain(**arguments)

    monkeypatch.setattr(model, "generate", spy)
    prompts = chat_format.document_ids(tokenizer, ["the cat", "a"])
    generate.generate(model, tokenizer, prompts, max_new_tokens=3)
    assert not {"output_logits", "output_scores", "output_hidden_states"} & set(asked)


def test_the_tokens_are_those_of_model_generate(tokenizer):
    import torch

    model = tiny_model(tokenizer).eval()
    prompt = chat_format.document_ids(tokenizer, ["the cat sat"])[0]
    ours, _ = generate.generate(model, tokenizer, [prompt] * 4, max_new_tokens=9)
    options = generate.settings(model, tokenizer, temperature=0.0)
    rows = model.generate(input_ids=torch.tensor([prompt] * 4), max_new_tokens=9, **options)
    new = rows[:, len(prompt) :].tolist()
    assert [row[: len(ids)] for row, ids in zip(new, ours, strict=True)] == ours


def test_memory_lowers_the_batch_and_greedy_replies_stay_the_same(tokenizer, monkeypatch):
    from llmstages.text import batching

    model = tiny_model(tokenizer)
    prompts = chat_format.document_ids(tokenizer, ["the cat", "the dog ran far", "a", "Bo Li"])
    whole = generate.generate(model, tokenizer, prompts, max_new_tokens=6)
    sizes = []
    plain = generate.decode

    def spy(model, prompts, *rest):
        sizes.append(len(prompts))
        return plain(model, prompts, *rest)

    monkeypatch.setattr(generate, "decode", spy)
    size = batching.bytes_per_sequence(model, max(map(len, prompts)), 6)
    free = 3 * size / batching.SHARE_OF_FREE
    monkeypatch.setattr(batching, "free_memory", lambda device: free)
    parts = generate.generate(model, tokenizer, prompts, max_new_tokens=6)
    assert sizes == [2, 2], "three would fit, but batches are powers of two"
    assert parts[0] == whole[0] and parts[1] == pytest.approx(whole[1], abs=1e-6)


def test_one_long_prompt_makes_only_its_own_batch_small(tokenizer, monkeypatch):
    from llmstages.text import batching

    model = tiny_model(tokenizer)
    prompts = chat_format.document_ids(tokenizer, ["the cat"] * 4 + ["the dog ran far " * 20])
    short, long = len(prompts[0]), len(prompts[-1])
    sizes = []
    plain = generate.decode

    def spy(model, prompts, *rest):
        sizes.append(len(prompts))
        return plain(model, prompts, *rest)

    monkeypatch.setattr(generate, "decode", spy)
    needed = batching.bytes_per_sequence(model, short, 4)
    assert batching.bytes_per_sequence(model, long, 4) > 4 * needed / 2
    monkeypatch.setattr(batching, "free_memory", lambda device: 4 * needed / batching.SHARE_OF_FREE)
    generate.generate(model, tokenizer, prompts, max_new_tokens=4, batch=4)
    assert sizes == [4, 1]


def test_settings_that_a_model_brings_along_change_no_answer(tokenizer):
    model = tiny_model(tokenizer)
    prompts = chat_format.prompt_ids(tokenizer, [QUESTION] * 3)
    plain = generate.generate(model, tokenizer, prompts, max_new_tokens=12)
    model.generation_config.update(
        repetition_penalty=1.8, no_repeat_ngram_size=1, do_sample=True, min_p=0.5, top_k=1
    )
    brought = model.generation_config
    assert generate.generate(model, tokenizer, prompts, max_new_tokens=12) == plain
    assert model.generation_config is brought, "what is saved stays as it came"
    assert generate.own_settings(model) == {
        "do_sample": True,
        "top_k": 1,
        "min_p": 0.5,
        "repetition_penalty": 1.8,
        "no_repeat_ngram_size": 1,
    }


def test_the_settings_of_a_model_under_adapters_are_set_aside_too(tokenizer):
    from peft import LoraConfig, get_peft_model

    model = tiny_model(tokenizer)
    model.generation_config.repetition_penalty = 1.8
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"]))
    with decoding.plain_settings(adapted):
        assert model.generation_config.repetition_penalty is None
    assert model.generation_config.repetition_penalty == 1.8


def test_a_model_with_settings_of_its_own_is_named(tokenizer, tmp_path):
    from llmstages.core.stage import Artifact, Context
    from llmstages.train.inference import load_for_inference

    model = tiny_model(tokenizer)
    model.generation_config.repetition_penalty = 1.1
    model.save_pretrained(tmp_path / "m")
    said: list[str] = []
    ctx = Context("evaluate", tmp_path, tmp_path, {}, say=said.append)
    load_for_inference(Artifact("m", "model", tmp_path / "m", "m"), ctx, "float32")
    assert said == [
        "evaluate: repetition_penalty=1.1 in generation_config.json of m are not used: answers "
        "follow the probabilities that training changes"
    ]
