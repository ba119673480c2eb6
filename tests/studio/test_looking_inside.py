"""Next token, inside and forward pass say what the model itself computes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers

from llmstages.core.errors import StageError
from llmstages.studio import forward_pass, inside
from llmstages.studio.forward_pass import ABOUT, layers_of, parts_of, walk
from llmstages.studio.inside import attention_by_layer, last_norm, look_inside
from tests.tiny_architectures import BUILT, SIZES, VOCABULARY, random_model

TEXT = "The cat number 3 sat on the mat."
WIDE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
OLDER = [
    transformers.GPTNeoXConfig(**WIDE, vocab_size=VOCABULARY, intermediate_size=48),
    transformers.PhiConfig(**WIDE, vocab_size=VOCABULARY, intermediate_size=48),
    transformers.OPTConfig(**WIDE, vocab_size=VOCABULARY, ffn_dim=48, word_embed_proj_dim=32),
    transformers.BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4),
]


@pytest.fixture
def model(studio):
    return studio.pool.get("base").session.model


def logits_of(model, ids):
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits[0].float()


def residuals_after_layers(model, ids):
    """What each layer gives, by hooks of the test's own."""
    seen = []
    hooks = [
        layer.register_forward_hook(
            lambda _, given, output: seen.append(output[0] if type(output) is tuple else output)
        )
        for layer in layers_of(model)
    ]
    logits_of(model, ids)
    for hook in hooks:
        hook.remove()
    return [state.reshape(len(ids), -1).float() for state in seen]


def random_studio(monkeypatch, model) -> Any:
    """A studio whose one model is this one, which has no tokenizer; its text is 12 fixed ids."""
    session = SimpleNamespace(model=model, tokenizer=NumberTokenizer())
    loaded = SimpleNamespace(session=session)
    for view in (inside, forward_pass):
        monkeypatch.setattr(view, "ids_of", lambda *given: list(range(5, 17)))
    return SimpleNamespace(pool=SimpleNamespace(get=lambda name: loaded))


class NumberTokenizer:
    all_special_ids: tuple[int, ...] = ()

    def get_added_vocab(self):
        return {}

    def convert_ids_to_tokens(self, ids):
        return [f"t{id}" for id in ids]


def test_candidates_are_the_softmax_of_the_logits(client, model):
    data = client.post("/api/next_token", model="base", text=TEXT, top=5)
    probabilities = logits_of(model, data["ids"]).softmax(-1)
    assert len(data["positions"]) == len(data["tokens"]) == len(data["ids"])
    for place, position in enumerate(data["positions"]):
        best = probabilities[place].topk(5)
        shown = position["candidates"]
        assert [token["id"] for token in shown] == best.indices.tolist()
        assert [token["probability"] for token in shown] == pytest.approx(best.values.tolist())
        bits = -(probabilities[place] * probabilities[place].log2()).sum().item()
        assert position["entropy"] == pytest.approx(bits, rel=1e-4)
    after = data["positions"][2]
    actual = data["ids"][3]
    assert after["probability"] == pytest.approx(probabilities[2, actual].item())
    assert after["rank"] == (probabilities[2] > probabilities[2, actual]).sum().item() + 1
    assert "rank" not in data["positions"][-1], "nothing follows the last one"


def test_a_branch_goes_on_from_any_token(client, model):
    data = client.post("/api/next_token", model="base", text=TEXT)
    other = data["positions"][4]["candidates"][3]["id"]
    ids = [*data["ids"][:5], other]
    longer = client.post("/api/branch", model="base", ids=ids, count=6)["ids"]
    assert longer[: len(ids)] == ids and len(longer) <= len(ids) + 6
    step = int(logits_of(model, ids)[-1].argmax())
    assert longer[len(ids)] == step, "greedy without a temperature"
    again = client.post("/api/next_token", model="base", ids=longer)
    assert again["ids"] == longer
    drawn = [
        client.post("/api/branch", model="base", ids=ids, temperature=1, seed=seed)["ids"]
        for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_chat_prompt_is_rendered_by_the_template(client):
    data = client.post("/api/next_token", model="plain", text="Hi", chat=True)
    names = [token["text"] for token in data["tokens"] if token["kind"] == "control"]
    assert "<|im_start|>" in names


def test_attention_lens_and_norms_are_the_models_own(client, model):
    data = client.post("/api/inside", model="base", text=TEXT)
    ids = [token["id"] for token in data["tokens"]]
    logits = logits_of(model, ids)
    layers = model.config.num_hidden_layers
    assert len(data["attention"]) == layers and len(data["lens"]) == layers + 1
    for heads in data["attention"]:
        assert len(heads) == model.config.num_attention_heads
        for weights in heads:
            for place, row in enumerate(weights):
                assert sum(row) == pytest.approx(1, abs=1e-3)
                assert not any(row[place + 1 :]), "nobody looks ahead"
    best = logits.softmax(-1).topk(3)
    last = data["lens"][-1]
    assert [[token["id"] for token in at] for at in last] == best.indices.tolist()
    embeddings = model.get_input_embeddings()(torch.tensor(ids))
    assert data["norms"][0] == pytest.approx(embeddings.norm(dim=-1).tolist(), abs=1e-3)
    assert model.config._attn_implementation != "eager", "what it was before"
    assert data["attention_layers"] == list(range(layers))
    with torch.no_grad():
        states = residuals_after_layers(model, ids)
    for shown, state in zip(data["norms"][1:], states, strict=True):
        assert shown == pytest.approx(state.norm(dim=-1).tolist(), abs=1e-3)


def test_a_forward_pass_ends_with_the_models_logits(client, model):
    data = client.post("/api/forward", model="base", text=TEXT, position=3)
    ids = [token["id"] for token in data["tokens"]]
    logits = logits_of(model, ids)
    steps = data["steps"]
    assert [steps[0]["kind"], steps[-2]["kind"], steps[-1]["kind"]] == [
        "embedding",
        "last norm",
        "output",
    ]
    assert steps[-1]["values"] == pytest.approx(
        logits[3][: len(steps[-1]["values"])].tolist(), abs=1e-3
    )
    assert steps[-1]["shape"] == [1, len(ids), model.config.vocab_size]
    assert {"norm", "query", "key", "value", "attention", "mlp", "layer"} <= {
        step["kind"] for step in steps
    }
    probability = logits[3].softmax(-1).max().item()
    assert data["next"][0]["probability"] == pytest.approx(probability)
    counted = sum(step["parameters"] for step in steps if step["kind"] in ("layer", "last norm"))
    counted += steps[0]["parameters"]
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert counted + (0 if tied else steps[-1]["parameters"]) == model.num_parameters()
    assert not any(module._forward_hooks for module in model.modules()), "the hooks are gone"


@pytest.mark.parametrize("architecture", [name for name in BUILT if name != "mamba"])
def test_models_of_other_architectures_are_walked_through(architecture):
    model = random_model(architecture)
    parts = parts_of(model)
    kinds = [part.kind for part in parts]
    assert kinds[0] == "embedding" and kinds[-1] == "output"
    assert kinds.count("layer") == 2 == len(layers_of(model))
    assert "attention" in kinds and set(kinds) <= set(ABOUT)
    assert last_norm(model) is not None


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma2", "bloom", "mixtral", "qwen3"])
def test_the_lens_of_other_architectures_ends_with_their_logits(architecture):
    from llmstages.studio.inside import _lens

    model = random_model(architecture)
    ids = torch.arange(5, 15).unsqueeze(0)
    with torch.no_grad():
        outputs = model(input_ids=ids, output_hidden_states=True)
        lens = _lens(model, outputs, NumberTokenizer())
    best = outputs.logits[0].topk(3).indices.tolist()
    assert [[token["id"] for token in at] for at in lens[-1]] == best


@pytest.mark.parametrize("architecture", sorted(BUILT))
def test_norms_of_other_architectures_are_those_of_their_residuals(architecture, monkeypatch):
    """The last one too, which transformers gives after the norm; Mamba has no attention."""
    model = random_model(architecture)
    data = look_inside(random_studio(monkeypatch, model), {"model": "x"})
    last = residuals_after_layers(model, list(range(5, 17)))[-1].norm(dim=-1)
    assert data["norms"][-1] == pytest.approx(last.tolist(), abs=1e-3)
    assert data["attention_layers"] == ([] if architecture == "mamba" else [0, 1])
    assert len(data["attention"]) == len(data["attention_layers"])


def test_layers_without_attention_keep_their_numbers(monkeypatch):
    config = transformers.Lfm2Config(
        **SIZES, layer_types=["conv", "full_attention"], block_auto_adjust_ff_dim=False
    )
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    data = look_inside(random_studio(monkeypatch, model), {"model": "x"})
    assert data["attention_layers"] == [1] and len(data["attention"]) == 1
    with_none = attention_by_layer(config, [None, "weights"])
    assert with_none == {1: "weights"}
    assert attention_by_layer(config, ["a", "b", "c"]) == {}, "nobody knows whose they are"


@pytest.mark.parametrize("config", OLDER, ids=lambda config: config.model_type)
def test_the_parts_of_older_architectures_are_known(config, monkeypatch):
    """They have other names for the same parts."""
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    data = walk(random_studio(monkeypatch, model), {"model": "x"})
    kinds = {step["kind"] for step in data["steps"]}
    assert {"attention", "attention output", "up", "down", "layer", "output"} <= kinds
    logits = logits_of(model, list(range(5, 17)))[-1]
    shown = data["steps"][-1]["values"]
    assert shown == pytest.approx(logits[: len(shown)].tolist(), abs=1e-3)


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/api/next_token", {"model": "nobody", "text": "a"}, "there is no model 'nobody'"),
        ("/api/next_token", {"model": "base"}, "text must be a text"),
        ("/api/next_token", {"model": "base", "text": "word " * 2000}, "at most 128"),
        ("/api/next_token", {"model": "base", "ids": [10**6]}, "ids must be a list of token ids"),
        ("/api/next_token", {"model": "base", "ids": []}, "ids must be a list"),
        ("/api/next_token", {"model": "base", "text": "a", "top": 1000}, "top must be a number"),
        ("/api/branch", {"model": "base", "ids": [5], "count": 10**6}, "count must be a number"),
        ("/api/inside", {"model": "base", "text": "word " * 200}, "at most 96"),
        ("/api/forward", {"model": "base", "text": "a", "position": 99}, "position must be"),
    ],
)
def test_what_cannot_be_looked_at_is_refused(client, path, body, message):
    assert message in client.post(path, 400, **body)["error"]["message"]


def test_a_model_that_is_too_large_for_the_view_is_refused(studio, monkeypatch):
    from llmstages.studio import inside

    monkeypatch.setattr(inside, "MOST_NUMBERS", 10)
    with pytest.raises(StageError, match="take a shorter text"):
        look_inside(studio, {"model": "base", "text": TEXT})
