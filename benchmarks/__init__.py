"""Speed, as ratios against a reference or a physical floor measured in the same run: ``python -m benchmarks``."""
