"""Overrides to plain values, by Hydra. The only file that imports hydra or omegaconf.

The registry is a Hydra config source: every stage ``rl.grpo`` is option ``grpo`` of group ``rl``,
with its Config as the schema, so an installed plugin is selectable with no YAML. Presets in conf/
lie in the same groups. Left out on purpose: ``hydra.utils.instantiate`` (arbitrary code by config;
names resolve through the registry), ``@hydra.main`` (it changes the folder and takes over logging),
the ``hydra_plugins`` namespace (it is not found in editable installs).
"""

from __future__ import annotations

import dataclasses as dc
import gc
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import resources
from importlib.metadata import entry_points
from typing import Any

from hydra import initialize_config_module
from hydra._internal import defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import IConfigRepository
from hydra._internal.defaults_list import DefaultsList, create_defaults_list
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from llmstages.core import registry
from llmstages.core.config import build_config, make_schema
from llmstages.core.errors import StageError
from llmstages.pipeline import hydra_errors, smoke, steps_check
from llmstages.pipeline.hydra_errors import SETTINGS
from llmstages.pipeline.run_config import RunConfig, check_run_name

RECIPE_KEYS = {
    "steps",
    "name",
    "smoke",
    "chat",
}  # all that a recipe may say besides its defaults list
Loaded = tuple[DictConfig, DefaultsList, IConfigRepository]


class StageSource(ConfigSource):
    """The registry as Hydra groups: ``rl/grpo`` is a stage, ``filters/url`` is a component."""

    @staticmethod
    def scheme() -> str:
        return "stages"

    def available(self) -> bool:
        return True

    def is_group(self, config_path: str) -> bool:
        group = config_path.strip("/")
        return group in (*SETTINGS, *registry.component_groups(), *registry.slots())

    def is_config(self, config_path: str) -> bool:
        group, _, name = config_path.removesuffix(".yaml").strip("/").rpartition("/")
        return bool(group) and name in self._options(group)

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        if results_filter == ObjectType.GROUP:
            return []
        return self._options(config_path.strip("/"))

    def load_config(self, config_path: str) -> ConfigResult:
        group, _, name = config_path.removesuffix(".yaml").strip("/").rpartition("/")
        return ConfigResult(
            provider=self.provider,
            path=f"stages://{group}/{name}",
            config=_node(group, name),
            header={"package": None},
        )

    @staticmethod
    def _options(group: str) -> list[str]:
        if group in SETTINGS:
            return ["base"]
        stages = [
            name.partition(".")[2]
            for name in registry.entries(registry.STAGES)
            if name.startswith(f"{group}.")
        ]
        components: list[str] = []
        if group in registry.component_groups():
            components = [*registry.entries(group)]
        # `tools` is a slot and a group of components; a name can only be one of both.
        if clashes := sorted({*stages} & {*components}):
            name = clashes[0]
            raise StageError(
                f"{name!r} is registered both as the stage {group}.{name} and in "
                f"llmstages.{group}. One of the two must be renamed"
            )
        return sorted([*stages, *components])


def _node(group: str, name: str) -> DictConfig:
    """The typed node of one option.

    A stage that cannot be imported becomes a node with the error, which hurts only if it is run.
    """
    if group in SETTINGS:
        return OmegaConf.structured(make_schema(SETTINGS[group], "option", "base"))
    try:
        if f"{group}.{name}" in registry.entries(registry.STAGES):
            return OmegaConf.structured(_stage_schema(f"{group}.{name}"))
        component = registry.load_checked(group, name)
        return OmegaConf.structured(make_schema(component.Config, "use", name))
    except StageError as error:
        return OmegaConf.create({"stage": f"{group}.{name}", "broken": str(error)})


def _stage_schema(name: str) -> type:
    stage = registry.load_stage(name)
    components = {
        group: registry.default_components(members)
        for group, members in getattr(stage, "components", {}).items()
    }
    return make_schema(stage.Config, "stage", name, components)


class SearchPath(SearchPathPlugin):
    """Our conf first, so that no plugin can shadow it; then the registry; then third parties."""

    def manipulate_search_path(self, search_path: Any) -> None:
        search_path.append(provider="llmstages", path="stages://")
        for point in sorted(entry_points(group="llmstages.conf"), key=lambda point: point.name):
            # A path, not an import: these packages hold YAML files.
            search_path.append(provider=point.name, path=f"pkg://{point.value}")


@contextmanager
def _hydra() -> Iterator[ConfigLoaderImpl]:
    """Hydra, set up with our sources; yields its config loader."""
    plugins = Plugins.instance()
    plugins.register(StageSource)
    plugins.register(SearchPath)
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
            _check_recipes(repository, listed)
            return _read(config, listed.overrides.known_choices, listed.config_overrides)
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
    return _load(loader, chosen)


def _composed(loader: ConfigLoaderImpl, overrides: Sequence[str]) -> Loaded:
    """What hydra.compose() does, without Hydra's own configuration (logging, launchers, folders).

    Hydra's public compose() reads all that for nothing. It composes the story in 0.75 s of CPU,
    where this and _map_if_needed take 0.60 s; a plan never seen before takes 0.9 s in all, and the
    public API would bring it to the second that a plan may take. So this goes under it;
    tests/pipeline/test_compose.py compares the two and fails when Hydra moves.
    """
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
    return config, listed, repository


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


def _read_slots(config: DictConfig, choices: Mapping[str, str | None]) -> dict[str, Any]:
    """Step -> ``{"stage": name, **values}``, from every key that is not one of a run's own."""
    own_keys = {"smoke", *(field.name for field in dc.fields(RunConfig))} - {"slots", "given"}
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
    # Each override is tried after the valid ones: slow, but only after an error.
    for override in [None, *overrides]:
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
