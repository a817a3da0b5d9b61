"""Mean similarity of the components in use, so that no two of them tell the same story (arXiv 2507.23600)."""

from spectrafuse.ops.ambiguity_penalty.api import ambiguity_penalty

__all__ = ["ambiguity_penalty"]
