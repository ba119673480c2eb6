"""Where Hydra finds the options of a group: our conf, the registry, packages, the user's own conf.

The registry is a Hydra config source: every stage ``rl.grpo`` is option ``grpo`` of group ``rl``,
with its Config as the schema, so an installed plugin is selectable with no YAML. Presets in conf/
lie in the same groups, and so do those of ``./conf`` in the folder where a run is started.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf

from llmstages.core import file_components, registry
from llmstages.core.config import make_schema
from llmstages.core.errors import StageError
from llmstages.pipeline import own_conf
from llmstages.pipeline.hydra_errors import SETTINGS


def register() -> None:
    """Tell Hydra of our sources."""
    plugins = Plugins.instance()
    plugins.register(StageSource)
    plugins.register(SearchPath)


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
        group, name = self._taken_apart(config_path)
        if group in registry.component_groups() and file_components.is_file(name):
            return True
        return bool(group) and name in self._options(group)

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        if results_filter == ObjectType.GROUP:
            return []
        return self._options(config_path.strip("/"))

    def load_config(self, config_path: str) -> ConfigResult:
        group, name = self._taken_apart(config_path)
        return ConfigResult(
            provider=self.provider,
            path=f"stages://{group}/{name}",
            config=_node(group, name),
            header={"package": None},
        )

    @staticmethod
    def _taken_apart(config_path: str) -> tuple[str, str]:
        """(group, name); a component may be named by the path of its file."""
        group, _, name = config_path.removesuffix(".yaml").lstrip("/").partition("/")
        return group, name

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
    """Our conf first, so that nothing can shadow it; the registry; third parties; ./conf last."""

    def manipulate_search_path(self, search_path: Any) -> None:
        search_path.append(provider="llmstages", path="stages://")
        for point in sorted(entry_points(group="llmstages.conf"), key=lambda point: point.name):
            # A path, not an import: these packages hold YAML files.
            search_path.append(provider=point.name, path=f"pkg://{point.value}")
        if folder := own_conf.folder():
            search_path.append(provider=own_conf.PROVIDER, path=f"file://{folder}")
