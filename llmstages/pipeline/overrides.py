"""Overrides as a list of words: what replaces what, and a command that can be copied.

Nothing is composed here, so that error messages and hints cost nothing.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from llmstages.core import file_components, registry

COMPONENT = re.compile(r"\+?(?P<place>\w+\.(?P<group>\w+)\.\w+)=(?P<name>.+)")
KEY = re.compile(r"[+~]*([^=]*)")


def key_of(override: str) -> str:
    """What an override sets, without its signs: ``rl@second`` of ``+rl@second=dpo``."""
    match = KEY.match(override)
    return match[1] if match else override


def merge(base: Sequence[str], *extra: str) -> list[str]:
    """The overrides of ``base`` with further ones, which replace those that set the same key."""
    replaced = {key_of(override) for override in extra}
    kept = [override for override in base if key_of(override) not in replaced]
    return [*kept, *extra]


def value_of(overrides: Sequence[str], key: str) -> str:
    """What the last override of a key sets it to; "" where none does."""
    values = [word.partition("=")[2] for word in overrides if key_of(word) == key]
    return values[-1] if values else ""


def command(words: str, overrides: Sequence[str] = (), *extra: str) -> str:
    """A command line for people to copy: ``command("run", overrides, "only=sft")``.

    Args:
        words: the command with its arguments, without ``llmstages``.
        overrides: those that the user gave.
        extra: further ones, which replace those that set the same key.
    """
    return f"llmstages {words} {shlex.join(merge(overrides, *extra))}".rstrip()


def choose_components(overrides: Sequence[str]) -> list[str]:
    """The overrides with ``rl.rewards.mine=NAME`` written as the choice that Hydra knows.

    That is ``+rewards@rl.rewards.mine=NAME``. NAME is a registered component or its file,
    ``./my_reward.py:score``; other values stay as they are.
    """
    return [_choice(override) for override in overrides]


def choose_presets(overrides: Sequence[str], presets: Mapping[str, Mapping[str, str]]) -> list[str]:
    """The overrides with the presets that a recipe has for the variants of its slots.

    So ``rl=dpo`` keeps what the recipe stands for (LoRA, say), though it is another variant.

    Args:
        presets: slot -> variant -> preset, the ``presets`` of a recipe.
    """
    chosen = []
    for override in overrides:
        group, _, variant = override.partition("=")
        slot = key_of(group).partition("@")[0]
        preset = presets.get(slot, {}).get(variant)
        chosen.append(f"{group}={preset}" if preset else override)
    return chosen


def _choice(override: str) -> str:
    match = COMPONENT.fullmatch(override)
    if not match or match["group"] not in registry.component_groups():
        return override
    group, place, name = match["group"], match["place"], match["name"]
    if name in registry.entries(group):
        return f"+{group}@{place}={name}"
    if not file_components.is_file(name):
        return override
    # In quotes, since Hydra's grammar knows only some of the characters that a path may have.
    path = name.replace("~", str(Path.home()), 1) if name.startswith("~/") else name
    quoted = path.replace("\\", "\\\\").replace("'", "\\'")
    return f"+{group}@{place}='{quoted}'"
