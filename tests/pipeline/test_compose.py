"""Composition: types, parts, presets, the seed, and one clear message for every mistake."""

import re
from pathlib import Path

import pytest
import yaml

from llmstages.core.errors import StageError
from llmstages.pipeline.compose import RECIPE_KEYS, compose, expand, origins
from llmstages.pipeline.run_config import folder_name
from llmstages.pipeline.wiring import make_steps

ROOT = Path(__file__).parents[2]


def steps(*overrides):
    composed = compose(["recipe=toy", *overrides])
    return {step.name: step for step in make_steps(composed.slots, composed.steps, composed.only)}


def test_values_arrive_with_the_types_of_the_config(toys):
    config = steps(
        "toycorpus.shape=[3,4]",
        "toycorpus.limit=5",
        "toycorpus.inner.names=[x]",
        "toycorpus.rate=1",
    )["toycorpus"].config
    assert (
        config.shape == (3, 4)
        and config.limit == 5
        and config.inner.names == ("x",)
        and config.inner.depth == 2
    )
    assert isinstance(config.rate, float)


def test_a_preset_changes_only_what_it_says(toys):
    made = steps()
    assert (
        made["tuned"].config.learning_rate == 1e-3 and made["toymodel"].config.learning_rate == 1e-6
    )
    assert made["tuned"].uses == "toymodel.plain"
    assert steps("toymodel=eager", "toymodel.learning_rate=2")["toymodel"].config.learning_rate == 2


def test_the_seed_of_the_run_is_every_stages_seed_unless_set(toys):
    made = steps("seed=7", "toymodel.seed=1")
    assert (
        made["toypages"].config.seed,
        made["toymodel"].config.seed,
        made["tuned"].config.seed,
    ) == (7, 1, 7)


def test_parts_can_be_set_added_and_removed(toys):
    assert steps()["toycorpus"].config.filters == {
        "toy_short": {"use": "toy_short", "most": 100, "verbose": False}
    }
    assert (
        steps("toycorpus.filters.toy_short.most=3")["toycorpus"].config.filters["toy_short"]["most"]
        == 3
    )
    added = steps("+filters@toycorpus.filters.mine=toy_short", "toycorpus.filters.mine.most=1")[
        "toycorpus"
    ].config.filters
    assert list(added) == ["toy_short", "mine"] and added["mine"]["most"] == 1
    assert steps("~toycorpus.filters.toy_short")["toycorpus"].config.filters == {}


def test_wiring_from_the_command_line(toys):
    made = steps("steps.toymodel.base=hub:org/name@main")
    assert made["toymodel"].inputs["base"].name == "hub:org/name@main"
    assert steps("steps.tuned.base=null")["tuned"].inputs["base"] is None


@pytest.mark.parametrize(
    "override, said",
    [
        ("toymodel.learning_rat=1", "Did you mean 'learning_rate'"),
        ("toymodel.learning_rate=abc", "toymodel.learning_rate: 'abc' is not a number"),
        ("toymodel.seed=1.5", "toymodel.seed: '1.5' is not a whole number"),
        ("toymodel=plian", "toymodel has no variant or preset 'plian'. Did you mean 'plain'"),
        ("toymodl=plain", "there is no 'toymodl' in this run. Did you mean 'toymodel'"),
        ("tuned=plain", "write toymodel@tuned=plain"),
        ("toymodel=5", "SLOT=NAME"),
        ("toymodel=broken", "No module named 'toys_absent'"),
        (
            "toycorpus.mode=fats",
            "toycorpus.mode is 'fats', which is none of fast, slow. Did you mean 'fast'",
        ),
        (
            "toycorpus.filters.toy_short.mots=2",
            "toycorpus.filters.toy_short has no key 'mots'. Did you mean 'most'",
        ),
        (
            "toycorpus.filters.toy_short.most=x",
            "toycorpus.filters.toy_short.most: 'x' is not a whole number",
        ),
        ("~toycorpus.filters.toy_shor", "Did you mean 'toy_short'"),
        ("toycorpus.inner.dept=1", "Did you mean 'depth'"),
        ("toycorpus.shape=[a]", "'a' is not a whole number"),
        ("tools=search", "the recipe has no step for the slot 'tools'"),
        ("only=tund", "Did you mean 'tuned'"),
        ("recipe=tow", "Did you mean 'toy'"),
        ("recipe=inline", "sets 'toymodel' inline"),
        ("steps.tuned.bas=toymodel", "Did you mean 'base'"),
        ("steps.tuned.base=toymodl", "Did you mean 'toymodel'"),
        ("steps.toymodel.base=tuned", "comes later in the recipe"),
        ("steps.tuned.base=hub:org/name", "say which revision"),
        ("steps.tuned.base=./nowhere", "no such folder"),
        ("toymodel=distilled", "needs a model as its input 'teacher'"),
        ("launch=dpd", "Did you mean 'ddp'"),
        ("launch.processes=2", "needs backend=torchrun"),
        ("foo", "cannot read 'foo'"),
        ("toymodel.x=Zoë", "needs quotes: \"toymodel.x='Zoë'\""),
        ("toymodel.x=a=b", "needs quotes: \"toymodel.x='a=b'\""),
        ("toymodel.x=it's", "needs quotes: \"toymodel.x='it\\\\'s'"),
        ("toymodel.learning_rate=1,2", "may be one text or a sweep"),
        ("store=", "store and runs need the name of a folder"),
    ],
)
def test_every_mistake_says_what_to_write(toys, override, said):
    with pytest.raises(StageError) as caught:
        steps(override)
    assert said in str(caught.value)


def test_another_variant_takes_other_inputs_and_the_plan_says_so(toys):
    tuned = steps("toymodel@tuned=distilled")["tuned"]
    assert tuned.notes == (
        "input base is not taken by toymodel.distilled: left out",
        "input teacher is not wired: takes toymodel, the nearest model",
    )
    assert tuned.inputs["teacher"].name == "toymodel"


def test_only_keeps_a_step_and_what_it_hangs_on(toys):
    assert list(steps("only=tuned")) == ["toypages", "toycorpus", "toymodel", "tuned"]
    assert list(steps("only=toycorpus", "toymodel=broken")) == ["toypages", "toycorpus"]


def test_a_folder_can_feed_an_input_if_it_is_of_the_kind(toys):
    (toys / "mine").mkdir()
    with pytest.raises(StageError, match="not a model. It lacks model: config.json"):
        steps("steps.toymodel.base=./mine")
    for name in ("config.json", "tokenizer_config.json"):
        (toys / "mine" / name).write_text("{}")
    assert steps("steps.toymodel.base=./mine")["toymodel"].inputs["base"].kind == "model"


def test_origins_tell_presets_from_the_command_line(toys):
    found = origins(["recipe=toy", "toymodel.seed=3"])
    assert (
        found["toymodel.seed"] == "command line"
        and found["tuned.learning_rate"] == "conf/toymodel/eager.yaml"
    )


def test_our_way_into_hydra_gives_what_its_compose_gives(toys):
    """compose.py goes under Hydra's public API; a version that composes otherwise fails here."""
    import hydra
    from omegaconf import OmegaConf

    from llmstages.pipeline import compose

    overrides = [
        "recipe=toy",
        "toymodel@tuned=plain",
        "toycorpus.filters.toy_short.most=2",
        "~toycorpus.filters.toy_short",
        "+filters@toycorpus.filters.mine=toy_short",
        "seed=3",
        "launch=zero2",
    ]
    with compose._hydra() as loader:
        theirs = hydra.compose("config", overrides)
        assert OmegaConf.to_yaml(compose._load(loader, overrides)[0]) == OmegaConf.to_yaml(theirs)


def test_sweeps_expand_in_hydras_grammar():
    assert expand(["a=1,2", "b=x", "rl@tuned=p,q"]) == [
        ["a=1", "b=x", "rl@tuned=p"],
        ["a=1", "b=x", "rl@tuned=q"],
        ["a=2", "b=x", "rl@tuned=p"],
        ["a=2", "b=x", "rl@tuned=q"],
    ]


@pytest.mark.parametrize(
    "path", sorted((ROOT / "conf" / "recipe").glob("*.yaml")), ids=lambda path: path.stem
)
def test_recipes_only_choose_and_wire(path):
    extra = set(yaml.safe_load(path.read_text())) - RECIPE_KEYS - {"defaults"}
    assert not extra, (
        f"{path.name} sets {sorted(extra)} inline; put the values in a preset conf/SLOT/NAME.yaml"
    )


@pytest.mark.parametrize(
    "path", sorted((ROOT / "conf" / "recipe").glob("*.yaml")), ids=lambda path: path.stem
)
def test_every_recipe_composes(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    composed = compose([f"recipe={path.stem}"])
    assert composed.steps and set(composed.steps) <= set(composed.slots)


def test_no_preset_hides_a_registered_variant():
    from llmstages.core import registry

    names = {f"{path.parent.name}.{path.stem}" for path in (ROOT / "conf").glob("*/*.yaml")}
    assert not names & set(registry.entries("stages")), (
        "a preset with the name of a variant would include itself"
    )


def test_adding_what_is_there_is_choosing_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    filters = compose(
        [
            "corpus=none",
            "+filters@corpus.filters.language=language",
            "+filters@corpus.filters.c4=c4",
        ]
    ).slots["corpus"]["filters"]
    assert {name for name, spec in filters.items() if spec} == {"language", "c4"}
    assert (
        compose(["+extractors@corpus.extractors.html=plain"]).slots["corpus"]["extractors"]["html"][
            "use"
        ]
        == "plain"
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["filters@corpus.filters.line_dedup=line_dedup"],
            "put a + in front: +filters@corpus.filters.line_dedup=line_dedup",
        ),
        (
            ["corpus.filters.language.languages=de"],
            "takes a list; write corpus.filters.language.languages=[de]",
        ),
    ],
)
def test_what_to_write_instead_is_said(tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StageError, match=re.escape(said)):
        compose(words)


def test_a_recipe_has_presets_for_the_variants_that_are_chosen(toys):
    composed = compose(["recipe=adapted", "toymodel=plain", "toymodel@tuned=plain"])
    assert composed.slots["toymodel"]["learning_rate"] == 1e-3
    assert composed.slots["tuned"]["learning_rate"] == 1e-3
    assert composed.notes == {
        "toymodel": "toymodel=plain takes the preset eager in this recipe",
        "tuned": "toymodel@tuned=plain takes the preset eager in this recipe",
    }
    # What is not chosen on the command line is as the recipe has it, and values still count.
    composed = compose(["recipe=adapted", "toymodel=plain", "toymodel.learning_rate=2"])
    assert composed.slots["toymodel"]["learning_rate"] == 2
    assert list(composed.notes) == ["toymodel"]
    assert compose(["recipe=toy", "toymodel=plain"]).notes == {}


def test_posttrain_keeps_adapters_with_another_variant():
    paths = [f"{step}.path=x" for step in ("model", "dialogues", "problems", "preferences")]
    for variant in ("grpo", "rloo", "ppo", "rejection", "dpo", "kto"):
        composed = compose(["recipe=posttrain", *paths, f"rl={variant}"])
        assert composed.slots["rl"]["stage"] == f"rl.{variant}"
        assert composed.slots["rl"]["lora_r"] > 0


@pytest.mark.parametrize("order", [1, -1])
def test_a_key_of_another_variant_is_refused_wherever_it_stands(order):
    overrides = ["rl.max_completion_length=32", "rl=dpo"][::order]
    with pytest.raises(StageError, match="rl has no key 'max_completion_length'"):
        compose(overrides)


@pytest.mark.parametrize(
    "word", ["2024_06_01", "1e3", "007", "no", "True", "1_000", "0x1f", "1.50"]
)
def test_what_is_typed_into_a_field_of_text_is_what_counts(word):
    composed = compose(["recipe=story", f"name={word}", f"identity.name={word}"])
    assert composed.name == word
    assert composed.slots["identity"]["name"] == word


@pytest.mark.parametrize("word", ["no", "on", "1e3", "1_000", "1.50"])
def test_words_that_yaml_reads_as_something_else_are_refused(word, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf/knowledge").mkdir(parents=True)
    file = tmp_path / "conf/knowledge/mine.yaml"
    for quoted in (False, True):
        value = f'"{word}"' if quoted else word
        file.write_text(f"defaults:\n  - identity\n  - _self_\nname: {value}\n")
        overrides = ["recipe=story", "knowledge@identity=mine"]
        if quoted:
            assert compose(overrides).slots["identity"]["name"] == word
        else:
            with pytest.raises(StageError, match=r"mine.yaml: identity.name holds .* in quotes"):
                compose(overrides)


def test_texts_in_lists_are_checked_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf/corpus").mkdir(parents=True)
    file = tmp_path / "conf/corpus/norsk.yaml"
    start = "defaults:\n  - fineweb\n  - _self_\nfilters: {language: {languages: "
    file.write_text(f"{start}[no, nn]}}}}\n")
    with pytest.raises(StageError, match=r"languages\[0\] holds False .* in quotes"):
        compose(["recipe=real", "corpus=norsk"])
    file.write_text(f'{start}["no", nn]}}}}\n')
    composed = compose(["recipe=real", "corpus=norsk"])
    assert list(composed.slots["corpus"]["filters"]["language"]["languages"]) == ["no", "nn"]


def test_names_of_folders_are_safe_and_unique():
    long = [f"identity.name={'so and so ' * 30}{end}" for end in "xy"]
    names = ["plain", "a=1+b=x.y", "a/b", "a_b", "a:b", "\u00fcber", *long]
    made = [folder_name(name) for name in names]
    assert made[:2] == names[:2]
    assert made[5] == names[5]
    assert len(set(made)) == len(names)
    for name in made:
        assert len(name.encode()) <= 120
        assert not set(name) & set('/\\:*?"<>|\0\n')
