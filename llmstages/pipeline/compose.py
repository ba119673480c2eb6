"""Overrides to plain values, by Hydra. The only file that imports hydra or omegaconf.

The registry is a Hydra config source: every stage ``rl.grpo`` is option ``grpo`` of group ``rl``, with its Config as
the schema, so an installed plugin is selectable with no YAML. Presets in conf/ lie in the same groups.
Left out on purpose: ``hydra.utils.instantiate`` (arbitrary code by config; names resolve through the registry),
``@hydra.main`` (it changes folder and takes over logging), and the ``hydra_plugins`` namespace (not found when editable).
"""

from __future__ import annotations

import dataclasses as dc
import gc
import itertools
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
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
from llmstages.launch.config import Launch
from llmstages.launch.hardware import Hardware
from llmstages.pipeline import hydra_errors
from llmstages.pipeline.run_config import RunConfig

RECIPE_KEYS = {"steps", "name", "smoke"}  # all a recipe may say besides its defaults list
HOW = {
    "launch": Launch,
    "hardware": Hardware,
}  # groups that say how or on what, never what: presets of one dataclass


class StageSource(ConfigSource):
    """The registry as Hydra groups: ``rl/grpo`` from llmstages.stages, ``filters/url`` from llmstages.filters."""

    @staticmethod
    def scheme() -> str:
        return "stages"

    def available(self) -> bool:
        return True

    def is_group(self, config_path: str) -> bool:
        group = config_path.strip("/")
        return group in HOW or group in registry.COMPONENTS or group in registry.slots()

    def is_config(self, config_path: str) -> bool:
        group, _, name = config_path.removesuffix(".yaml").strip("/").rpartition("/")
        return bool(group) and name in self._options(group)

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        return [] if results_filter == ObjectType.GROUP else self._options(config_path.strip("/"))

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
        names = [
            n.split(".", 1)[1]
            for n in registry.entries(registry.STAGES)
            if n.startswith(f"{group}.")
        ]
        parts = list(registry.entries(group)) if group in registry.COMPONENTS else []
        if both := sorted({*names} & {*parts}):  # `tools` is a slot and a group of smaller plugins
            raise StageError(
                f"{both[0]!r} is registered both as a stage {group}.{both[0]} and in llmstages.{group}; one must be renamed"
            )
        return ["base"] if group in HOW else sorted([*names, *parts])


def _node(group: str, name: str) -> DictConfig:
    """The typed node of one option. A stage that cannot be imported becomes a note, which hurts only if it is run."""
    if group in HOW:
        return OmegaConf.structured(make_schema(HOW[group], "option", "base"))
    try:
        if f"{group}.{name}" in registry.entries(registry.STAGES):
            stage = registry.load_stage(f"{group}.{name}")
            parts = {
                part: registry.default_components(members)
                for part, members in getattr(stage, "components", {}).items()
            }
            made = make_schema(stage.Config, "stage", f"{group}.{name}", parts)
        else:
            made = make_schema(registry.load(group, name).Config, "use", name)
    except StageError as error:
        return OmegaConf.create({"stage": f"{group}.{name}", "broken": str(error)})
    return OmegaConf.structured(made)


class SearchPath(SearchPathPlugin):
    """Our conf first, so no plugin can shadow it; then the registry; then folders of third parties by name."""

    def manipulate_search_path(self, search_path: Any) -> None:
        search_path.append(provider="llmstages", path="stages://")
        for point in sorted(entry_points(group="llmstages.conf"), key=lambda point: point.name):
            search_path.append(
                provider=point.name, path=f"pkg://{point.value}"
            )  # never imported by us


@contextmanager
def _hydra() -> Iterator[ConfigLoaderImpl]:
    """Hydra, set up with our sources; yields its config loader."""
    plugins = Plugins.instance()
    plugins.register(StageSource)
    plugins.register(SearchPath)
    GlobalHydra.instance().clear()
    gc.disable()  # composing makes many small objects that all stay; looking for garbage among them costs a tenth of a plan
    try:
        with initialize_config_module("llmstages.conf", job_name="llmstages", version_base="1.3"):
            yield GlobalHydra.instance().hydra.config_loader
    finally:
        gc.enable()


def compose(overrides: Sequence[str] = ()) -> RunConfig:
    """Compose a run. Every mistake in the overrides is one StageError that says what to write instead."""
    with _hydra() as loader:
        try:
            cfg, listed, repository = _load(loader, overrides)
            recipe = listed.overrides.known_choices["recipe"]
            _check_recipes(repository, listed)
            given = {override.key_or_group for override in listed.config_overrides}
            return _read(cfg, recipe, listed.overrides.known_choices, given)
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            raise StageError(
                hydra_errors.mistake(error, overrides, _facts(loader, overrides))
            ) from error


def _map_if_needed(
    overrides: Any,
    defaults: list[Any],
    self_added: bool,
    make: Any = defaults_list._create_interpolation_map,
) -> Any:
    """Hydra builds a map of all choices at each of a recipe's sixty nodes, for ``${}`` in a defaults list, which is rare."""
    return (
        make(overrides, defaults, self_added)
        if any("${" in str(getattr(d, "value", "")) for d in defaults)
        else None
    )


defaults_list._create_interpolation_map = _map_if_needed


def _load(
    loader: ConfigLoaderImpl, overrides: Sequence[str]
) -> tuple[DictConfig, DefaultsList, IConfigRepository]:
    """Compose the overrides; +GROUP@STEP=NAME is GROUP@STEP=NAME where the run has it already: adding is then choosing."""
    try:
        return _composed(loader, overrides)
    except HydraException as error:
        found = re.search(r"Multiple values for ([^\s]+?)\. ", str(error))
        again = [one[1:] if found and one.startswith(f"+{found[1]}=") else one for one in overrides]
        if again == list(overrides):
            raise
    return _load(loader, again)


def _composed(
    loader: ConfigLoaderImpl, overrides: Sequence[str]
) -> tuple[DictConfig, DefaultsList, IConfigRepository]:
    """What hydra.compose() does, without Hydra's own configuration (logging, launchers, output folders).

    Those take half the time of a plan and nothing here reads them, so this goes under the public API (as does
    _map_if_needed); tests/core/test_compose.py compares the two and fails when Hydra moves.
    """
    wanted = [
        f"++{o}" if o.startswith("steps.") else o for o in overrides
    ]  # wiring may name an input the recipe left out
    parsed, repository = loader._parse_overrides_and_create_caching_repo("config", wanted)
    loader.validate_sweep_overrides_legal(parsed, run_mode=RunMode.RUN, from_shell=True)
    listed = create_defaults_list(
        repository, "config", parsed, prepend_hydra=False, skip_missing=False
    )
    cfg = loader._compose_config_from_defaults_list(listed.defaults, repository)
    OmegaConf.set_struct(cfg, True)
    loader._apply_overrides_to_config(listed.config_overrides, cfg)
    return cfg, listed, repository


def _read(
    cfg: DictConfig, recipe: str, choices: Mapping[str, str | None], given: Collection[str]
) -> RunConfig:
    """The composed values. given: dotted keys that the command line sets."""
    top = {"smoke", *(field.name for field in dc.fields(RunConfig))}
    slots = {}
    for name in cfg:
        if name in top:
            continue
        if not isinstance(
            cfg[name], DictConfig
        ):  # `reading=files` where the step `reading` fills the slot `dialogues`
            keys = [key for key in choices if key.endswith(f"@{name}")] or [f"SLOT@{name}"]
            raise StageError(
                f"{name!r} is the name of a step, not of a slot; to choose its variant write {keys[0]}={cfg[name]}"
            )
        slots[name] = OmegaConf.to_container(cfg[name], resolve=True)
        if cfg.smoke:
            _shrink(str(name), slots[name], given)
    if not cfg.store or not cfg.runs:
        raise StageError("store and runs need the name of a folder, e.g. store=store runs=runs")
    how = {}
    for group, config in HOW.items():
        values = OmegaConf.to_container(cfg[group], resolve=True)
        values.pop("option", None)
        how[group] = build_config(config, values, group)
    return RunConfig(
        seed=cfg.seed,
        store=str(cfg.store),
        runs=str(cfg.runs),
        name=str(cfg.name or recipe),
        only=cfg.only,
        slots=slots,
        steps=OmegaConf.to_container(cfg.steps, resolve=True),
        **how,
    )


def _shrink(key: str, values: dict[str, Any], given: Collection[str], group: str = "") -> None:
    """Set the ``smoke`` values of a stage or component and of its components, in place.

    What the command line sets stays, and so does what a preset turned off (0 where the default is not 0).
    """
    if "broken" in values:
        return
    if "stage" in values:
        cls = registry.load_stage(values["stage"])
    else:
        cls = registry.load(group, values["use"])
    defaults = {field.name: field.default for field in dc.fields(cls.Config)}
    for name, value in getattr(cls, "smoke", {}).items():
        turned_off = values[name] == 0 and defaults[name] != 0
        if f"{key}.{name}" not in given and not turned_off:
            values[name] = value
    for component_group in getattr(cls, "components", {}):
        for member, spec in values[component_group].items():
            if spec is not None:
                _shrink(f"{key}.{component_group}.{member}", spec, given, component_group)


def _check_recipes(repository: IConfigRepository, listed: DefaultsList) -> None:
    """A value set inline in a recipe would survive a swap of the variant, silently; so recipes only choose and wire."""
    for name in {d.config_path for d in listed.defaults if d.config_path.startswith("recipe/")}:
        for key in repository.load_config(name).config:
            if key not in RECIPE_KEYS:
                raise StageError(
                    f"{name}.yaml sets {key!r} inline. A recipe only chooses variants and wires steps, because an inline value "
                    f"would carry over to another variant. Put it in a preset, conf/{key}/NAME.yaml with `defaults: [VARIANT]`, "
                    f"and choose `- /{key}: NAME` in the recipe"
                )


def _facts(loader: ConfigLoaderImpl, overrides: Sequence[str]) -> hydra_errors.Facts:
    """What an error message needs to know: the options of a group, and the values there are without the mistake."""
    values: dict[str, Any] = {}
    good: list[str] = []
    for override in [None, *overrides]:  # drop what does not compose: slow, but only after an error
        try:
            cfg = _load(loader, [*good, override] if override else good)[0]
        except (HydraException, OmegaConfBaseException, ValueError):
            continue
        values = OmegaConf.to_container(cfg)
        good += [override] if override else []
    return hydra_errors.Facts(
        options=loader.get_group_options, is_group=loader.repository.group_exists, values=values
    )


def origins(overrides: Sequence[str]) -> dict[str, str]:
    """Dotted key -> where its value comes from, for keys that are not a plain default."""
    found: dict[str, str] = {}
    with _hydra() as loader:
        _, listed, repository = _load(loader, overrides)
        for default in listed.defaults:
            result = repository.load_config(default.config_path)
            if not result.path.startswith("stages://"):
                for key in _leaves(OmegaConf.to_container(result.config), default.package or ""):
                    found[key] = f"conf/{default.config_path}.yaml"
        for override in listed.config_overrides:
            found[override.key_or_group] = "command line"
    return found


def _leaves(values: Any, prefix: str) -> Iterator[str]:
    if isinstance(values, Mapping):
        for key, value in values.items():
            yield from _leaves(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix


def expand(overrides: Sequence[str]) -> list[list[str]]:
    """Every combination of a sweep: ``rl=grpo,ppo seed=range(0,3)`` in Hydra's own grammar gives six lists."""
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        choices = [
            [
                f"{o.key_or_group if o.package is None else o.get_key_element()}={value}"
                for value in o.sweep_string_iterator()
            ]
            if o.is_sweep_override()
            else [o.input_line]
            for o in parsed
        ]
    except HydraException as error:
        raise StageError(f"cannot read the sweep: {error}") from error
    return [list(combination) for combination in itertools.product(*choices)]
