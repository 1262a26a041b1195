"""Tukey's halfspace depth, and the deepest points."""
