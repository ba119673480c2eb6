"""Contents that a chat template can work on without making a control token of them.

A template may trim contents, change their case, write them as JSON or put them side by side; it
must not get to see anything that could spell a control token then. So some characters of the
contents are replaced by private-use characters that occur nowhere else in the dialogue. After
rendering they are changed back.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from llmstages.text.special_tokens import SpecialTokens
from llmstages.text.template_input import reads_tool_field
from llmstages.text.template_probes import REASONING_FIELDS
from llmstages.text.templates import calls_in

MESSAGE_KEYS = {"role", "content", "tool", "tool_calls", "tool_call_id", "arguments", "input"}
MESSAGE_KEYS |= {"id", "text", *REASONING_FIELDS}
TOOL_KEYS = {"type", "function", "name", "description", "parameters", "strict"}
SCHEMA_KEYS = {"properties", "required", "items", "enum", "default"}
TEMPLATE_KEYS = MESSAGE_KEYS | TOOL_KEYS | SCHEMA_KEYS  # templates look for them: never changed
PRIVATE_USE = (range(0xE000, 0xF900), range(0xF0000, 0xFFFFE))


class StandIns:
    """The characters of one dialogue that its template must not see, each with its stand-in.

    values: everything that the template will get; a stand-in must not occur in it.
    """

    def __init__(self, special_tokens: SpecialTokens, template: str, values: Any) -> None:
        self._special_tokens = special_tokens
        self._template = template
        self._values = values
        self._stand_ins: dict[str, str] = {}  # character -> its stand-in
        self._unused: Iterator[str] | None = None

    def protect(self, value: Any, key: str = "") -> Any:
        """The value with all its texts protected, at any depth. key: the field that holds it."""
        if isinstance(value, str):
            return value if self._is_fixed(key, value) else self._protect_text(value)
        if isinstance(value, dict):
            return {
                self._protect_key(name): self.protect(item, name) for name, item in value.items()
            }
        if isinstance(value, list):
            return [self.protect(item) for item in value]
        return value

    def restore(self, text: str) -> str:
        """A part of the rendered text with the original characters."""
        for character, stand_in in self._stand_ins.items():
            text = text.replace(stand_in, character)
            # tojson(ensure_ascii=True) writes the stand-in as an escape.
            if "ensure_ascii" in self._template:
                text = text.replace(f"\\u{ord(stand_in):04x}", character)
        return text

    def _is_fixed(self, key: str, value: str) -> bool:
        """Whether the value is one that templates compare with, so that it must stay as it is."""
        if key == "role" or (key == "type" and value == "text"):
            return True
        is_tool = key == "tool" and value in calls_in(self._template)
        return is_tool and reads_tool_field(self._template)

    def _protect_key(self, key: str) -> str:
        return key if key in TEMPLATE_KEYS else self._protect_text(key)

    def _protect_text(self, text: str) -> str:
        places = {match.start() for match in self._special_tokens.any_case_pattern.finditer(text)}
        # A template may trim the text, so its edges are those without white space.
        inner = text.strip()
        completes_left, completes_right = self._special_tokens.edges(inner)
        if completes_left or completes_right:
            inner_start = text.find(inner[:1])
            if completes_left:
                places.add(inner_start)
            if completes_right:
                places.add(inner_start + len(inner) - 1)
        if not places:
            return text
        characters = list(text)
        for place in sorted(places):
            characters[place] = self._stand_in(characters[place])
        return "".join(characters)

    def _stand_in(self, character: str) -> str:
        if character not in self._stand_ins:
            if self._unused is None:
                self._unused = self._unused_characters()
            self._stand_ins[character] = next(self._unused)
        return self._stand_ins[character]

    def _unused_characters(self) -> Iterator[str]:
        """Private-use characters that the values, the template and the control tokens lack."""
        taken = set(json.dumps(self._values, ensure_ascii=False)) | set(self._template)
        taken.update(*self._special_tokens.ids)
        for codes in PRIVATE_USE:
            for code in codes:
                if chr(code) not in taken:
                    yield chr(code)
