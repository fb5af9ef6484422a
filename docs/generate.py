"""Write the pages of ``docs/`` and the parts of the README that come from the registry: ``python -m docs.generate``."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path

from influence_core import registry
from influence_core.config import Config
from influence_core.other_names import OTHER_NAMES
from influence_core.workflows.diagnostics.catalogue import diagnostics

ROOT = Path(__file__).resolve().parent.parent
UNITS = {"measurement": "measurement", "gradient": "gradient", "value": "value", "rank": "order only"}


def method_table() -> str:
    """Return the table of methods, in the order of families."""
    lines = ["| id | method | estimates | units | needs |", "|---|---|---|---|---|"]
    entries = sorted(registry.entries().values(), key=lambda entry: (entry.info.family, entry.info.name))
    for entry in entries:
        info = entry.info
        needs = [words for need, (words, _) in registry.NEEDS_IN_WORDS.items() if need in info.needs]
        lines.append(f"| `{info.name}` | {info.title} | {info.estimand} | {UNITS[info.units]} | {', '.join(needs)} |")
    return "\n".join(lines)


def methods_page() -> str:
    """Return one section per method: what it says, its equation and assumptions, its options."""
    lines = ["# Methods", "", "Generated from the registry: `python -m docs.generate`.", ""]
    for name, entry in registry.entries().items():
        info = entry.info
        lines += [f"## `{name}`: {info.title}", "", info.summary, ""]
        module = sys.modules[entry.cls.__module__]
        lines += [(module.__doc__ or "").strip(), "", *option_table(entry.defaults)]
    return "\n".join([*lines, *other_names()])


def option_table(defaults: Config) -> list[str]:
    """Return the lines of a table of options."""
    fields = type(defaults).model_fields.items()
    rows = [f"| `{option}` | `{getattr(defaults, option)}` | {field.description} |" for option, field in fields]
    return ["| option | default | meaning |", "|---|---|---|", *rows, ""]


def other_names() -> list[str]:
    """Return the section on names that are no method of their own, so that they are found here too."""
    lines = ["## Other names", "", "Asking for one of these says what to call.", "", "| name | what it is | call |"]
    lines.append("|---|---|---|")
    for alias, name in sorted(registry.ALIASES.items()):
        what, call = f"another name of `{name}`", f"`attribute(study, '{alias}', test=[...])`"
        if alias == "cross_loss_if":
            what = f"`{name}` with any other number of a row than the loss"
            call = f"`attribute(..., measurement=Measurement(function))`, `diagnose(study, '{alias}')`"
        lines.append(f"| `{alias}` | {what} | {call} |")
    for name, other in sorted(OTHER_NAMES.items()):
        lines.append(f"| `{name}` | {other.what} | `{other.python}`, `{other.command}` |")
    return [*lines, ""]


def diagnostics_page() -> str:
    """Return one section per diagnostic, those of a file together under what the file says."""
    lines = [
        "# Diagnostics", "",
        "Questions about a model, a method or the data as a whole. Generated: `python -m docs.generate`.", "",
        "```", "python -m influence_core diagnose                                       # what there is",
        "python -m influence_core diagnose --workflow fragility_suite            # its options",
        "python -m influence_core diagnose STUDY --workflow fragility_suite --config '{\"rows\": 24}' --format text",
        "```", "", "From Python, `diagnose(study, \"fragility_suite\", config={...})` has a `table` and `notes`.", "",
    ]  # fmt: skip
    said = set()
    for name, entry in sorted(diagnostics().items(), key=lambda pair: (pair[1].function.__module__, pair[0])):
        module = entry.function.__module__
        lines += [f"## `{name}`: {entry.title}", "", entry.summary, ""]
        if module not in said:
            lines += [(sys.modules[module].__doc__ or "").strip(), ""]
        said.add(module)
        lines += [(inspect.getdoc(entry.function) or "").partition("\n\n")[2], "", f"Reference: {entry.reference}.", ""]
        lines += option_table(entry.Config())
    return "\n".join(lines)


def with_table(readme: str) -> str:
    """Return the README with its method table renewed."""
    return re.sub(
        r"(<!-- methods -->\n).*?(<!-- /methods -->)", lambda m: m[1] + method_table() + "\n" + m[2], readme, flags=re.S
    )


def main() -> None:
    """Write all files."""
    (ROOT / "docs" / "methods.md").write_text(methods_page())
    (ROOT / "docs" / "diagnostics.md").write_text(diagnostics_page())
    readme = ROOT / "README.md"
    readme.write_text(with_table(readme.read_text()))


if __name__ == "__main__":
    main()
