"""What every reader yields."""

from __future__ import annotations

import dataclasses as dc


@dc.dataclass(frozen=True)
class Record:
    """A page or a text as it was stored. media: "text/html" or "text/plain". charset: as the server declared it, or ""."""

    id: str
    url: str
    body: bytes
    media: str
    charset: str = ""


@dc.dataclass(frozen=True)
class Bad:
    """What could not be used. position: file and line, record or byte. rule: damaged, status, media, empty or format."""

    position: str
    reason: str
    rule: str = "damaged"
    url: str = ""

    def as_dropped(self, excerpt: str = "") -> dict[str, str]:
        """A row of a ``dropped/`` table (see kinds.py)."""
        return {"id": self.position, "url": self.url, "rule": self.rule, "value": self.reason, "limit": "", "excerpt": excerpt}
