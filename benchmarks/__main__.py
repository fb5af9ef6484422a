"""Run the benchmarks: ``python -m benchmarks [case ...] [--write docs/benchmarks.md]``."""

from __future__ import annotations

import argparse
import importlib
import platform
from pathlib import Path

import torch

from benchmarks.timing import Report

CASES = (
    "reference_case", "mlp_case", "scaling", "million_rows", "million_import", "browser", "review", "map", "quality",
    "cleaning", "damping", "segments", "ekfac", "switching", "lds_models", "lds",
)  # fmt: skip


def main() -> None:
    """Run the chosen cases and print, or write, one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", choices=[[], *CASES], default=[])
    parser.add_argument("--write", type=Path)
    chosen = parser.parse_args()
    report = Report()
    for name in chosen.cases or CASES:
        importlib.import_module(f"benchmarks.{name}").run(report)
    if chosen.write:
        chosen.write.write_text(markdown(report))


def markdown(report: Report) -> str:
    """Return the report as a page."""
    lines = [
        "# Measured speed", "",
        "Written by `python -m benchmarks --write docs/benchmarks.md`; every ratio compares two things measured "
        "in turn in the same run. Absolute times belong to the machine: "
        f"{torch.get_num_threads()} threads, {platform.machine()}, torch {torch.__version__}.", "",
        "| | case | figure | value | bar |", "|---|---|---|---|---|",
    ]  # fmt: skip
    marks = {None: "", True: "met", False: "**missed**"}
    lines += [f"| {marks[row.met]} | {row.case} | {row.figure} | {row.value} | {row.bar} |" for row in report.rows]
    missed = [f"- {row.case}: {row.figure}: {row.value}, bar {row.bar}" for row in report.rows if row.met is False]
    lines += ["", "## Bars missed", "", *(missed or ["None."]), ""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
