"""Built-in studies, trained here and now, with planted label errors whose truth is kept aside."""

from influence_core.demos.builder import DEMOS, build_demo

__all__ = ["DEMOS", "build_demo"]
