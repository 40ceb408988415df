"""The versions of OpenAPI that can be asked for, and what the document calls each."""

from __future__ import annotations

from typing import Final, Literal

Version = Literal["3.2", "3.1"]

VERSIONS: Final[dict[Version, str]] = {"3.2": "3.2.0", "3.1": "3.1.0"}
