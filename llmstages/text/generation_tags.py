"""``{% generation %}``: marks of transformers around what the assistant says.

No other program knows this tag, and a plain Jinja environment cannot parse a template that has it.
So saved templates go without, and training rows are rendered with the marked form.
"""

from __future__ import annotations

import re

# Comments are matched too, so that a tag which one of them mentions is left alone.
GENERATION_TAG = re.compile(
    r"(?P<comment>\{#.*?#\})|\{%(?P<left>[-+]?)\s*(?:end)?generation\s*(?P<right>[-+]?)%\}",
    re.DOTALL,
)


def strip_generation(template: str) -> str:
    """A chat template without ``{% generation %}``, which renders the same text.

    An empty comment takes the place of each tag, because it trims white space in the same way.
    """
    return GENERATION_TAG.sub(_as_comment, template)


def needs_extensions(template: str) -> str:
    """What a plain Jinja environment says about a saved template; "" if it can read it.

    ``{% break %}`` and ``{% continue %}`` are extensions that transformers has and others lack.
    """
    from jinja2 import Environment, TemplateSyntaxError

    try:
        Environment().parse(strip_generation(template))
    except TemplateSyntaxError as error:
        return error.message or type(error).__name__
    return ""


def _as_comment(match: re.Match[str]) -> str:
    return match["comment"] or f"{{#{match['left']}{match['right']}#}}"
