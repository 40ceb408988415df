"""What an action takes: from the annotations of a function to typed values, faults and JSON Schema.

The way of a call's inputs: `model` holds what registration read (`signatures`, `annotations`); `structuring` makes
values of raw ones (`scalars`, `unions`), or `faults` says where they do not fit; `redaction` hides what is secret.
`schema` describes the same annotations.
"""

from .annotations import SECRET, Secret
from .model import Inputs

__all__ = ["SECRET", "Inputs", "Secret"]
