"""Overrides to plain values, by Hydra's Compose API. The only file that imports hydra or omegaconf.

The registry is a Hydra config source: every stage ``rl.grpo`` is option ``grpo`` of group ``rl``, with its Config as
the schema, so an installed plugin is selectable with no YAML. Presets in conf/ lie in the same groups.
Left out on purpose: ``hydra.utils.instantiate`` (arbitrary code by config; names resolve through the registry),
``@hydra.main`` (it changes folder and takes over logging), and the ``hydra_plugins`` namespace (not found when editable).
"""

from __future__ import annotations

import dataclasses as dc
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import entry_points
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_module
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

from llmstages import explain, registry, schema
from llmstages.launch import Launch
from llmstages.stage import StageError

RECIPE_KEYS = {"steps", "name"}  # all a recipe may say besides its defaults list


@dc.dataclass(frozen=True)
class Composed:
    """A run as plain values: nothing of Hydra is left in it.

    slots: step -> {"stage": name, **values}; steps: step -> {input: source}; missing: keys still without a value.
    """

    seed: int
    store: str
    runs: str
    name: str
    only: str | None
    launch: Launch
    slots: Mapping[str, Mapping[str, Any]]
    steps: Mapping[str, Mapping[str, Any]]
    overrides: tuple[str, ...] = ()


class StageSource(ConfigSource):
    """The registry as Hydra groups: ``rl/grpo`` from llmstages.stages, ``filters/url`` from llmstages.filters."""

    @staticmethod
    def scheme() -> str:
        return "stages"

    def available(self) -> bool:
        return True

    def is_group(self, config_path: str) -> bool:
        group = config_path.strip("/")
        return group == "launch" or group in registry.PARTS or group in registry.slots()

    def is_config(self, config_path: str) -> bool:
        group, _, name = config_path.removesuffix(".yaml").strip("/").rpartition("/")
        return bool(group) and name in self._options(group)

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        return [] if results_filter == ObjectType.GROUP else self._options(config_path.strip("/"))

    def load_config(self, config_path: str) -> ConfigResult:
        group, _, name = config_path.removesuffix(".yaml").strip("/").rpartition("/")
        return ConfigResult(provider=self.provider, path=f"stages://{group}/{name}", config=_node(group, name),
                            header={"package": None})

    @staticmethod
    def _options(group: str) -> list[str]:
        names = [n.split(".", 1)[1] for n in registry.entries(registry.STAGES) if n.startswith(f"{group}.")]
        names += list(registry.entries(group)) if group in registry.PARTS else []
        return ["base"] if group == "launch" else sorted(names)


def _node(group: str, name: str) -> DictConfig:
    """The typed node of one option. A stage that cannot be imported becomes a note, which hurts only if it is run."""
    if group == "launch":
        return OmegaConf.structured(schema.make_schema(Launch, "option", "base"))
    try:
        if f"{group}.{name}" in registry.entries(registry.STAGES):
            stage = registry.load_stage(f"{group}.{name}")
            made = schema.make_schema(stage.Config, "stage", f"{group}.{name}", getattr(stage, "parts", None))
        else:
            made = schema.make_schema(registry.load(group, name).Config, "use", name)
    except StageError as error:
        return OmegaConf.create({"stage": f"{group}.{name}", "broken": str(error)})
    return OmegaConf.structured(made)


class SearchPath(SearchPathPlugin):
    """Our conf first, so no plugin can shadow it; then the registry; then folders of third parties by name."""

    def manipulate_search_path(self, search_path: Any) -> None:
        search_path.append(provider="llmstages", path="stages://")
        for point in sorted(entry_points(group="llmstages.conf"), key=lambda point: point.name):
            search_path.append(provider=point.name, path=f"pkg://{point.value}")  # never imported by us


@contextmanager
def _hydra() -> Iterator[Any]:
    """Hydra, set up with our sources; yields its config loader."""
    plugins = Plugins.instance()
    plugins.register(StageSource)
    plugins.register(SearchPath)
    GlobalHydra.instance().clear()
    with initialize_config_module("llmstages.conf", job_name="llmstages", version_base="1.3"):
        yield GlobalHydra.instance().hydra.config_loader


def compose(overrides: Sequence[str] = ()) -> Composed:
    """Compose a run. Every mistake in the overrides is one StageError that says what to write instead."""
    given = tuple(overrides)
    overrides = [f"++{o}" if o.startswith("steps.") else o for o in given]  # wiring may name an input the recipe left out
    with _hydra() as loader:
        try:
            cfg = hydra_compose("config", list(overrides), return_hydra_config=True)
            recipe = cfg.hydra.runtime.choices["recipe"]
            _check_recipe(loader, recipe)
            return _read(cfg, recipe, given)
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            raise StageError(explain.mistake(error, overrides, _facts(loader, overrides))) from error


def _read(cfg: DictConfig, recipe: str, overrides: tuple[str, ...]) -> Composed:
    top = {"seed", "store", "runs", "name", "only", "launch", "steps", "hydra"}
    slots = {}
    for name in cfg:
        if name in top:
            continue
        if not isinstance(cfg[name], DictConfig):  # `reading=files` where the step `reading` fills the slot `dialogues`
            keys = [key for key in cfg.hydra.runtime.choices if key.endswith(f"@{name}")] or [f"SLOT@{name}"]
            raise StageError(f"{name!r} is the name of a step, not of a slot; to choose its variant write {keys[0]}={cfg[name]}")
        slots[name] = OmegaConf.to_container(cfg[name], resolve=True)
    if not cfg.store or not cfg.runs:
        raise StageError("store and runs need the name of a folder, e.g. store=store runs=runs")
    launch = OmegaConf.to_container(cfg.launch, resolve=True)
    launch.pop("option", None)
    return Composed(seed=cfg.seed, store=str(cfg.store), runs=str(cfg.runs), name=str(cfg.name or recipe), only=cfg.only,
                    launch=schema.build(Launch, launch, "launch"), slots=slots,
                    steps=OmegaConf.to_container(cfg.steps, resolve=True), overrides=overrides)


def _check_recipe(loader: Any, name: str) -> None:
    """A value set inline in a recipe would survive a swap of the variant, silently; so recipes only choose and wire."""
    found = loader.repository.load_config(f"recipe/{name}")
    for key in found.config or {}:
        if key not in RECIPE_KEYS:
            raise StageError(
                f"recipe {name!r} sets {key!r} inline. A recipe only chooses variants and wires steps, because an inline "
                f"value would carry over to another variant. Put it in a preset, conf/{key}/NAME.yaml with `defaults: "
                f"[VARIANT]`, and choose `- /{key}: NAME` in the recipe")
    for default in found.defaults_list or ():
        path = getattr(default, "path", None)
        if path and path != "_self_" and "/" not in path:
            _check_recipe(loader, path)


def _facts(loader: Any, overrides: Sequence[str]) -> explain.Facts:
    """What an error message needs to know: the options of a group, and the keys there are without the bad override."""
    groups = lambda group: loader.get_group_options(group)  # noqa: E731
    exists = lambda group: loader.repository.group_exists(group)  # noqa: E731
    good: list[str] = []
    for override in overrides:  # drop what does not compose: slow, but only after an error
        try:
            hydra_compose("config", [*good, override])
            good.append(override)
        except (HydraException, OmegaConfBaseException, ValueError):
            continue
    try:
        cfg = OmegaConf.to_container(hydra_compose("config", good))
    except (HydraException, OmegaConfBaseException, ValueError):
        cfg = {}
    return explain.Facts(options=groups, is_group=exists, values=cfg)


def origins(overrides: Sequence[str]) -> dict[str, str]:
    """Dotted key -> where its value comes from, for keys that are not a plain default."""
    found: dict[str, str] = {}
    with _hydra() as loader:
        listed = loader.compute_defaults_list("config", list(overrides), RunMode.RUN)
        for default in listed.defaults:
            result = loader.repository.load_config(default.config_path)
            package = default.package or ""
            if result is None or default.config_path.startswith("hydra") or result.path.startswith("stages://"):
                continue
            values = OmegaConf.to_container(result.config)
            for key in _leaves(values, package):
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
        choices = [[f"{o.key_or_group if o.package is None else o.get_key_element()}={value}" for value in o.sweep_string_iterator()]
                   if o.is_sweep_override() else [o.input_line] for o in parsed]
    except HydraException as error:
        raise StageError(f"cannot read the sweep: {error}") from error
    return [list(combination) for combination in itertools.product(*choices)]
