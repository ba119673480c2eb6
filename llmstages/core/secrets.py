"""Environment variables that look like secrets never reach a record, a log or a message."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

NAME = re.compile(r"(^|_)(TOKEN|KEY|SECRET|PASSWORD|PASSWD|CREDENTIALS?)S?($|_)", re.IGNORECASE)
SHORTEST = 8  # masking shorter values ("false", "main") would hide ordinary text


def mask(value: Any) -> Any:
    """The value with every secret in its texts replaced by ``***``."""
    if isinstance(value, Mapping):
        return {mask(key): mask(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [mask(item) for item in value]
    if isinstance(value, str):
        for name, secret in os.environ.items():
            if len(secret) >= SHORTEST and NAME.search(name):
                value = value.replace(secret, "***")
    return value
