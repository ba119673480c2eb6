"""The form of a chat template that training rows are rendered with.

A template must not change earlier turns when later ones follow, and it must mark what the assistant
says, if all answers of a dialogue are to be trained in one row. Many published templates do
neither: Qwen3's drops the thinking of earlier answers. TRL keeps a training form of the common ones
(``trl/chat_templates/*_training.jinja``), which writes the same text for one answer, keeps earlier
turns as they are, and has ``{% generation %}`` marks.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from llmstages.text.templates import marked_form, template_of

_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")  # as transformers looks for it


@cache
def marks_generation(template: str) -> bool:
    """Whether the template marks what the assistant says (``{% generation %}``)."""
    return bool(_GENERATION.search(template))


def training_template(tokenizer: Any) -> str:
    """The template for training rows.

    TRL's training form if there is one; a named template of ours with its marks; else the template.
    """
    template = marked_form(template_of(tokenizer))
    if not template or marks_generation(template):
        return template
    return _training_form(template) or template


def has_training_form(tokenizer: Any) -> bool:
    """Whether rows are rendered with TRL's training form instead of the template itself."""
    template = template_of(tokenizer)
    return training_template(tokenizer) not in (template, marked_form(template))


@cache
def _training_form(template: str) -> str:
    """TRL's training form of a template; "" where TRL has none."""
    from trl.chat_template_utils import get_training_chat_template

    try:
        return get_training_chat_template(_TemplateHolder(template)) or ""  # type: ignore[arg-type]
    except ValueError:
        return ""  # TRL does not know the template


class _TemplateHolder:
    """What TRL needs of a tokenizer to recognize its template.

    TRL also tries whether the template supports tools, by rendering. That matters only for
    templates with marks, which are used as they are.
    """

    def __init__(self, template: str) -> None:
        self.chat_template = template

    def apply_chat_template(self, *args: Any, **kwargs: Any) -> Any:
        from jinja2 import TemplateError

        raise TemplateError("only the text of the template is looked at")
