"""The description of an application: from its actions to an OpenAPI document.

Owns: the document, and in which order it tells what. `requests` says what an operation takes, `responses` what it
answers, `components` what several of them share. Does not know: how the document is served, or by which page shown.

Invariant: it tells what is so. The same annotations that structure inputs are described; a status stands at an
operation where the framework can answer it; what an action raises by itself, which nobody can know, is the `default`.
"""

from .document import document
from .versions import VERSIONS, Version

__all__ = ["VERSIONS", "Version", "document"]
