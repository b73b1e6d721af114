"""ShapesEdit: procedural multi-turn editing sessions with exact reference states (see benchmark.py)."""

from mteval.benchmarks.shapes.benchmark import ShapesEdit

__all__ = ["ShapesEdit"]
