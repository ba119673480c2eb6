"""Overrides to plain values, by Hydra. Only this file and config_sources.py import it.

Where options come from is in config_sources.py. Left out on purpose: ``hydra.utils.instantiate``
(arbitrary code by config; names resolve through the registry), ``@hydra.main`` (it changes the
folder and takes over logging), the ``hydra_plugins`` namespace (it is not found in editable
installs).
"""

from __future__ import annotations

import dataclasses as dc
import gc
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import resources
from typing import Any

from hydra import initialize_config_module
from hydra._internal import defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import IConfigRepository
from hydra._internal.defaults_list import DefaultsList, create_defaults_list
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from llmstages.core.config import build_config
from llmstages.core.errors import StageError
from llmstages.pipeline import config_sources, hydra_errors, own_conf, smoke, steps_check, texts
from llmstages.pipeline.hydra_errors import SETTINGS
from llmstages.pipeline.overrides import choose_components, choose_presets, key_of
from llmstages.pipeline.run_config import RunConfig, check_run_name

ENVIRONMENT = re.compile(r"\$\{\s*(?:oc\.)?env\b")  # of OmegaConf's resolvers
RECIPE_KEYS = {
    "steps",
    "name",
    "smoke",
    "chat",
    "presets",
}  # all that a recipe may say besides its defaults list
Loaded = tuple[DictConfig, DefaultsList, IConfigRepository]


@contextmanager
def _hydra() -> Iterator[ConfigLoaderImpl]:
    """Hydra, set up with our sources; yields its config loader."""
    config_sources.register()
    GlobalHydra.instance().clear()
    # Composing makes many small objects that all stay. Looking for garbage takes a tenth of a plan.
    gc.disable()
    try:
        with initialize_config_module("llmstages.conf", job_name="llmstages", version_base="1.3"):
            hydra = GlobalHydra.instance().hydra
            assert hydra is not None
            assert isinstance(hydra.config_loader, ConfigLoaderImpl)
            yield hydra.config_loader
    finally:
        gc.enable()


def compose(overrides: Sequence[str] = ()) -> RunConfig:
    """Compose a run.

    Raises:
        StageError: a mistake in the overrides; the message says what to write instead.
    """
    with _hydra() as loader:
        try:
            config, listed, repository = _load(loader, overrides)
            _check_own_names(repository, listed)
            _check_words(config, listed, repository)
            _check_recipes(repository, listed)
            run = _read(config, listed.overrides.known_choices, listed.config_overrides)
            return dc.replace(run, notes=_preset_notes(overrides, config.presets))
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            facts = _facts(loader, overrides)
            raise StageError(hydra_errors.explain(error, overrides, facts)) from error


def _map_if_needed(
    overrides: Any,
    defaults: list[Any],
    self_added: bool,
    make: Any = defaults_list._create_interpolation_map,
) -> Any:
    """Hydra maps all choices at each node of a defaults list, for ``${}`` in it, which is rare."""
    if any("${" in str(getattr(default, "value", "")) for default in defaults):
        return make(overrides, defaults, self_added)
    return None


defaults_list._create_interpolation_map = _map_if_needed


def _load(loader: ConfigLoaderImpl, overrides: Sequence[str]) -> Loaded:
    """Compose the overrides, with the presets that the recipe has for the variants they choose."""
    overrides = choose_components(overrides)
    loaded = _load_as_written(loader, overrides)
    with_presets = choose_presets(overrides, loaded[0].presets)
    if with_presets == overrides:
        return loaded
    return _load_as_written(loader, with_presets)


def _load_as_written(loader: ConfigLoaderImpl, overrides: Sequence[str]) -> Loaded:
    """Compose the overrides. ``+GROUP@STEP=NAME`` chooses where the run has GROUP@STEP already."""
    try:
        return _composed(loader, overrides)
    except HydraException as error:
        double = re.search(r"Multiple values for ([^\s]+?)\. ", str(error))
        if not double:
            raise
        chosen = [
            override[1:] if override.startswith(f"+{double[1]}=") else override
            for override in overrides
        ]
        if chosen == list(overrides):
            raise
    return _load_as_written(loader, chosen)


def _composed(loader: ConfigLoaderImpl, overrides: Sequence[str]) -> Loaded:
    """What hydra.compose() does, without Hydra's own configuration (logging, launchers, folders).

    Hydra's public compose() reads all that for nothing. It composes the story in 0.75 s of CPU,
    where this and _map_if_needed take 0.60 s; a plan never seen before takes 0.9 s in all, and the
    public API would bring it to the second that a plan may take. So this goes under it;
    tests/pipeline/test_compose.py compares the two and fails when Hydra moves.
    """
    for text in overrides:
        if ENVIRONMENT.search(text):
            raise StageError(
                f"{text.partition('=')[0]} would be read from the environment, and what stands "
                "there would end in records that people share. Write the value itself; keys of "
                "services are read from the environment when they are used (key_variable)"
            )
    # `++` for wiring, which may name an input that the recipe left out.
    wanted = [f"++{text}" if text.startswith("steps.") else text for text in overrides]
    parsed, repository = loader._parse_overrides_and_create_caching_repo("config", wanted)
    loader.validate_sweep_overrides_legal(parsed, run_mode=RunMode.RUN, from_shell=True)
    listed = create_defaults_list(
        repository, "config", parsed, prepend_hydra=False, skip_missing=False
    )
    config = loader._compose_config_from_defaults_list(listed.defaults, repository)
    OmegaConf.set_struct(config, True)
    loader._apply_overrides_to_config(listed.config_overrides, config)
    _keep_words(config, listed.config_overrides)
    return config, listed, repository


def _keep_words(config: DictConfig, overrides: Sequence[Override]) -> None:
    """Set fields of text to the very words of the command line (texts.py)."""
    given = []
    for override in overrides:
        if not override.is_delete():
            word = str(override.input_line).partition("=")[2].strip()
            given.append((str(override.key_or_group), override.value(), word))
    for key, word in texts.typed_words(given, lambda key: _select(config, key)):
        OmegaConf.update(config, key, word)


def _select(config: DictConfig, key: str) -> Any:
    """A composed value; None where there is none."""
    try:
        return OmegaConf.select(config, key)
    except OmegaConfBaseException:
        return None  # something of another shape stands there


def _check_words(config: DictConfig, listed: DefaultsList, repository: IConfigRepository) -> None:
    """Refuse words in files that YAML took for something else (texts.py)."""
    for default in listed.defaults:
        loaded = repository.load_config(default.config_path) if default.config_path else None
        if loaded is None or loaded.path.startswith("stages://"):
            continue
        values = OmegaConf.to_container(loaded.config)
        file = f"conf/{default.config_path}.yaml"
        texts.refuse_yaml_words(
            file, values, default.package or "", lambda key: _select(config, key)
        )


def _read(
    config: DictConfig, choices: Mapping[str, str | None], config_overrides: Sequence[Override]
) -> RunConfig:
    """Plain values of the composed config. config_overrides: what the command line sets."""
    given = {str(override.key_or_group) for override in config_overrides}
    steps: dict[str, Any] = OmegaConf.to_container(config.steps, resolve=True)  # type: ignore
    slots = _read_slots(config, choices)
    if not config.store or not config.runs:
        raise StageError("store and runs need the name of a folder, e.g. store=store runs=runs")
    name = str(config.name or choices["recipe"])
    check_run_name(name, str(config.runs))
    removed = {key.removeprefix("steps.") for key in given if key.startswith("steps.")}
    steps = steps_check.check(steps, slots, given, removed)
    if config.only is not None and config.only not in steps:
        _refuse_earlier_name(str(config.only))
    if config.smoke:
        for step, values in slots.items():
            smoke.shrink(step, values, given)
    settings = {}
    for group, settings_class in SETTINGS.items():
        values: Any = OmegaConf.to_container(config[group], resolve=True)
        values.pop("option", None)
        settings[group] = build_config(settings_class, values, group)
    return RunConfig(
        seed=config.seed,
        store=str(config.store),
        runs=str(config.runs),
        name=name,
        only=config.only,
        chat=config.chat,
        slots=slots,
        steps=steps,
        given=sorted(given),
        **settings,
    )


def _preset_notes(overrides: Sequence[str], presets: Mapping[str, Any]) -> dict[str, str]:
    """Step -> what its plan says about a preset that the recipe has for the variant chosen."""
    notes = {}
    for given, chosen in zip(overrides, choose_presets(overrides, presets), strict=True):
        if given == chosen:
            continue
        key = key_of(given)
        step = key.partition("@")[2] or key
        notes[step] = f"{given} takes the preset {chosen.partition('=')[2]} in this recipe"
    return notes


def _read_slots(config: DictConfig, choices: Mapping[str, str | None]) -> dict[str, Any]:
    """Step -> ``{"stage": name, **values}``, from every key that is not one of a run's own."""
    about_composing = {"slots", "given", "notes"}
    fields = {field.name for field in dc.fields(RunConfig)} - about_composing
    own_keys = {"smoke", "presets", *fields}
    slots: dict[str, Any] = {}
    for key in config:
        name = str(key)
        if name in own_keys:
            continue
        if not isinstance(config[name], DictConfig):
            # `reading=files`, where the step `reading` fills the slot `dialogues`
            groups = [group for group in choices if group.endswith(f"@{name}")]
            if not groups:
                raise StageError(
                    f"{name!r} means nothing in this run: it is not a step, a slot or one of "
                    f"{', '.join(sorted(own_keys))}"
                )
            raise StageError(
                f"{name!r} is the name of a step, not of a slot. "
                f"To choose its variant write {groups[0]}={config[name]}"
            )
        slots[name] = OmegaConf.to_container(config[name], resolve=True)
    return slots


def _check_own_names(repository: IConfigRepository, listed: DefaultsList) -> None:
    """Refuse a chosen file of ./conf whose name is taken, since it would not be read."""
    folder = own_conf.folder()
    if folder is None:
        return
    for default in listed.defaults:
        file = folder / f"{default.config_path}.yaml"
        if not default.config_path or default.config_path == "config" or not file.exists():
            continue
        loaded = repository.load_config(default.config_path)
        if loaded is not None and loaded.provider != own_conf.PROVIDER:
            owner = "llmstages" if loaded.provider == "main" else loaded.provider
            raise StageError(
                f"{file} has a name that is taken: {owner} has a {default.config_path} too. "
                "Rename your file"
            )


def _check_recipes(repository: IConfigRepository, listed: DefaultsList) -> None:
    """Refuse values set inline in a recipe: they would survive a swap of the variant, silently."""
    recipes = {
        default.config_path
        for default in listed.defaults
        if default.config_path and default.config_path.startswith("recipe/")
    }
    for recipe in sorted(recipes):
        loaded = repository.load_config(recipe)
        assert loaded is not None
        for key in loaded.config:
            if key not in RECIPE_KEYS:
                raise StageError(
                    f"{recipe}.yaml sets {key!r} inline. A recipe only chooses variants and wires "
                    "steps, because an inline value would carry over to another variant. Put it in "
                    f"a preset, conf/{key}/NAME.yaml with `defaults: [VARIANT]`, and choose "
                    f"`- /{key}: NAME` in the recipe"
                )


def _facts(loader: ConfigLoaderImpl, overrides: Sequence[str]) -> hydra_errors.Facts:
    """What an error message needs: the options of a group, and the values without the mistake."""
    values: Any = {}
    valid: list[str] = []
    # Choices first: they decide which keys there are, wherever they stand on the command line.
    ordered = sorted(overrides, key=lambda override: "." in key_of(override))
    # Each override is tried after the valid ones: slow, but only after an error.
    for override in [None, *ordered]:
        tried = [*valid, override] if override else valid
        try:
            config = _load(loader, tried)[0]
        except (HydraException, OmegaConfBaseException, ValueError):
            continue
        values, valid = OmegaConf.to_container(config), tried
    return hydra_errors.Facts(
        options=loader.get_group_options,
        is_group=loader.repository.group_exists,
        values=values,
        renamed=_renamed(),
    )


def _renamed() -> Mapping[str, Mapping[str, Any]]:
    """Earlier names of steps, variants and presets."""
    file = resources.files("llmstages.conf") / "renamed.yaml"
    names: Any = OmegaConf.to_container(OmegaConf.create(file.read_text("utf-8")))
    return names


def _refuse_earlier_name(only: str) -> None:
    """Raise StageError where ``only`` is the earlier name of a step."""
    new = _renamed()["steps"].get(only)
    if new:
        raise StageError(f"only={only}: the step was renamed to {new}")


def origins(overrides: Sequence[str]) -> dict[str, str]:
    """Dotted key -> where its value comes from, for keys that are not a plain default."""
    sources: dict[str, str] = {}
    with _hydra() as loader:
        _, listed, repository = _load(loader, overrides)
        for default in listed.defaults:
            assert default.config_path is not None
            result = repository.load_config(default.config_path)
            if result is None or result.path.startswith("stages://"):
                continue
            values = OmegaConf.to_container(result.config)
            for key in _leaves(values, default.package or ""):
                sources[key] = f"conf/{default.config_path}.yaml"
        for override in listed.config_overrides:
            sources[str(override.key_or_group)] = "command line"
    return sources


def _leaves(values: Any, prefix: str) -> Iterator[str]:
    """The dotted keys of all values that are not mappings."""
    if not isinstance(values, Mapping):
        yield prefix
        return
    for key, value in values.items():
        yield from _leaves(value, f"{prefix}.{key}" if prefix else str(key))


def expand(overrides: Sequence[str]) -> list[list[str]]:
    """All combinations of a sweep in Hydra's grammar: ``rl=grpo,ppo seed=range(0,3)`` gives six."""
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        choices = [_choices(override) for override in parsed]
    except HydraException as error:
        raise StageError(f"cannot read the sweep: {error}") from error
    return [list(combination) for combination in itertools.product(*choices)]


def _choices(override: Override) -> list[str]:
    """The single overrides that one override of a sweep stands for."""
    if not override.is_sweep_override():
        return [str(override.input_line)]
    key = override.key_or_group if override.package is None else override.get_key_element()
    return [f"{key}={value}" for value in override.sweep_string_iterator()]
