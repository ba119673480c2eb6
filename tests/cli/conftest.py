"""A run with models to talk to."""

from __future__ import annotations

from tests.small_run import last as last
from tests.small_run import made as made
