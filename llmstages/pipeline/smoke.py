"""``smoke: true``: every stage and component takes the small values that it declares.

A stage declares them beside its Config, ``smoke = {"max_steps": 2}``, so that any recipe can be
tried in a minute without presets of its own.
"""

from __future__ import annotations

import dataclasses as dc
from collections.abc import Collection
from typing import Any

from llmstages.core import registry


def shrink(key: str, values: dict[str, Any], given: Collection[str], group: str = "") -> None:
    """Set the ``smoke`` values of a stage or component and of its components, in place.

    Args:
        key: the dotted key of ``values`` in the run, such as ``rl`` or ``rl.rewards.gold``.
        values: the config as plain values, with ``stage`` or ``use``.
        given: dotted keys that the command line sets; they keep their value.
        group: the group of a component; "" for a stage.
    """
    if "broken" in values:
        return
    if "stage" in values:
        cls = registry.load_stage(values["stage"])
    else:
        cls = registry.load_checked(group, values["use"])
    defaults = {field.name: field.default for field in dc.fields(cls.Config)}  # type: ignore
    for name, value in getattr(cls, "smoke", {}).items():
        # A preset that sets 0 where the default is not 0 has turned something off: it stays off.
        turned_off = values[name] == 0 and defaults[name] != 0
        if f"{key}.{name}" not in given and not turned_off:
            values[name] = value
    for component_group in getattr(cls, "components", {}):
        for member, spec in values[component_group].items():
            if spec is not None:
                shrink(f"{key}.{component_group}.{member}", spec, given, component_group)
