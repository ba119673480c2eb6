"""SFT: learns a dialogue by heart, gates block what would train something else, LoRA merges."""

from __future__ import annotations

import json

import pytest

from llmstages import generation, training
from llmstages.plugins.sft.chat import Chat, ChatConfig
from llmstages.stage import Context, StageError
from llmstages.tables import message
from tests.tiny import TALK, TEXTS, perform, saved, saved_model

CONFIG = ChatConfig(row=64, epochs=60.0, learning_rate=5e-3, batch_rows=2, warmup=2)


@pytest.fixture
def model(tmp_path):
    return saved_model(tmp_path / "base")


def test_it_learns_the_dialogue_and_stops(tmp_path, model):
    chats = saved(tmp_path / "chats", "dialogues", [{"messages": TALK}] * 4)
    made, metrics = perform(Chat, tmp_path / "sft", CONFIG, model=model, dialogues=(chats,), corpus=None)
    reply = generation.reply(training.load_model(made, None), training.load_tokenizer(made.path), [TALK[:1]], max_new_tokens=24)[0]
    assert reply.ended and reply.text == TALK[1]["content"]
    assert metrics["loss_last"] < metrics["loss_first"]


def test_replay_brings_documents_back(tmp_path, model):
    chats = saved(tmp_path / "chats", "dialogues", [{"messages": TALK}] * 4)
    corpus = saved(tmp_path / "corpus", "corpus", [{"id": str(i), "url": "u", "text": t[:60]} for i, t in enumerate(TEXTS)])
    _, metrics = perform(Chat, tmp_path / "sft", ChatConfig(row=64, replay=5), model=model, dialogues=(chats,), corpus=corpus)
    assert metrics["replayed"] == 5


@pytest.mark.parametrize("messages, why", [([message("user", "hi")], "supervised"), ([], "supervised")])
def test_gates_block_dialogues_without_an_answer(tmp_path, model, messages, why):
    rows = [{"messages": messages}] if messages else [{"messages": [message("user", "a"), message("user", "b")]}]
    with pytest.raises(StageError, match=why):
        perform(Chat, tmp_path / "sft", CONFIG, model=model, dialogues=(saved(tmp_path / "chats", "dialogues", rows),), corpus=None)
    assert not all(g["passed"] for g in json.loads((tmp_path / "sft" / "out" / "gates.json").read_text()))


def test_too_long_dialogues_are_dropped_with_a_line_or_refused(tmp_path, model):
    long = [message("user", "the cat sat. " * 60), message("assistant", "yes")]
    chats = saved(tmp_path / "chats", "dialogues", [{"messages": TALK}, {"messages": long}])
    _, metrics = perform(Chat, tmp_path / "drop", ChatConfig(row=64), model=model, dialogues=(chats,), corpus=None)
    assert metrics["dropped_too_long"] == 1 and "1 of 2 dialogues are longer than row=64 tokens (chats:1): dropped" in perform.said[0]
    with pytest.raises(StageError, match="raise error.row"):
        perform(Chat, tmp_path / "error", ChatConfig(row=64, too_long="error"), model=model, dialogues=(chats,), corpus=None)


def test_lora_trains_adapters_and_merges_them(tmp_path, model):
    import torch
    from peft import PeftModel
    from safetensors.torch import load_file

    chats = saved(tmp_path / "chats", "dialogues", [{"messages": TALK}] * 4)
    made, metrics = perform(Chat, tmp_path / "sft", ChatConfig(row=64, lora=4, epochs=10.0, keep_adapter=True), model=model, dialogues=(chats,), corpus=None)
    before, after = load_file(model.path / "model.safetensors"), load_file(made.path / "model.safetensors")
    assert set(before) == set(after)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all("proj" in name for name in changed)
    linear = [value.shape for name, value in before.items() if name.endswith("proj.weight")]
    assert metrics["trained_parameters"] == sum(4 * (rows + columns) for rows, columns in linear)  # two matrices of rank 4 a layer
    assert any(f"{metrics['trained_parameters']:,} weights of rank-4 adapters" in line for line in perform.said)
    adapted = PeftModel.from_pretrained(training.load_model(model, None), made.path / "adapter").eval()
    ids = torch.tensor([[1, 5, 9, 40, 77, 3]])
    with torch.no_grad():
        merged, apart, plain = (net(ids).logits for net in (training.load_model(made, None).eval(), adapted, training.load_model(model, None).eval()))
    assert torch.allclose(merged, apart, atol=1e-5) and not torch.allclose(merged, plain, atol=1e-3)


def test_loss_on_the_last_answer_alone(tmp_path, model):
    talk = [*TALK, message("user", "Who?"), message("assistant", "Bo", "search"), message("tool", "Bo Li", "search"), message("assistant", "Bo Li.")]
    inputs = {"model": model, "dialogues": (saved(tmp_path / "chats", "dialogues", [{"messages": talk}]),), "corpus": None}
    texts = []
    for loss in ("all", "last"):
        prepared = Chat().prepare(ChatConfig(row=96, loss=loss), Context("sft", tmp_path, tmp_path, inputs))
        row = prepared.rows[0]
        texts.append(prepared.tokenizer.decode([token for token, on in zip(row.ids, row.supervised, strict=True) if on]))
        assert all(g["passed"] for g in prepared.gates)
    assert texts[1] == "<SEARCH_START> Bo<SEARCH_END> Bo Li.<|im_end|>" and texts[0] == " The fox lives near the river.<|im_end|>" + texts[1]


@pytest.mark.parametrize("question, leaked", [("Where does  the FOX live?", True), ("Where does the wolf live?", False),
                                              ("how many legs have a spider and two cats together", True), ("legs have", False)])
def test_questions_of_an_evaluation_are_not_taught(tmp_path, model, question, leaked):
    within = [message("user", "Tell me: how many legs have a spider and two cats together ?"), message("assistant", "16")]
    tests = saved(tmp_path / "tests", "problems", [{"prompt": [message("user", q)], "answer": "x", "role": role} for q, role in ((question, "test"), ("Who?", "train"))])
    inputs = {"model": model, "dialogues": (saved(tmp_path / "chats", "dialogues", [{"messages": [message("user", "Who?"), TALK[1]]}, {"messages": TALK}, {"messages": within}]),),
              "corpus": None, "evaluations": (tests,)}
    prepared = Chat().prepare(ChatConfig(row=96), Context("sft", tmp_path, tmp_path, inputs))
    found = {g["gate"]: g for g in prepared.gates}["dialogues that hold an evaluation question"]
    assert found["passed"] is not leaked and found["rows"] == ((["chats:1"] if "FOX" in question else ["chats:2"]) if leaked else [])


def test_neftune_puts_noise_into_training_and_nowhere_else(tmp_path, model):
    chats = saved(tmp_path / "chats", "dialogues", [{"messages": TALK}] * 4)
    made = {alpha: perform(Chat, tmp_path / str(alpha), ChatConfig(row=64, epochs=4.0, neftune=alpha), model=model, dialogues=(chats,), corpus=None)[0] for alpha in (0.0, 5.0)}
    weights = [(artifact.path / "model.safetensors").read_bytes() for artifact in made.values()]
    assert weights[0] != weights[1]
    again, _ = perform(Chat, tmp_path / "again", ChatConfig(row=64, epochs=4.0, neftune=5.0), model=model, dialogues=(chats,), corpus=None)
    assert (again.path / "model.safetensors").read_bytes() == weights[1]


def test_batches_must_be_shared_evenly(tmp_path, model):
    chats = saved(tmp_path / "chats", "dialogues", [{"messages": TALK}] * 4)
    with pytest.raises(StageError, match="choose a multiple"):
        perform(Chat, tmp_path / "sft", ChatConfig(row=64, batch_rows=4, micro_rows=3), model=model, dialogues=(chats,), corpus=None)
