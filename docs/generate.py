"""Write the pages of ``docs/`` and the parts of the README that come from the registry: ``python -m docs.generate``."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from influence_core import registry

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
        lines += [(module.__doc__ or "").strip(), "", "| option | default | meaning |", "|---|---|---|"]
        for option, field in entry.cls.Config.model_fields.items():
            default = getattr(entry.defaults, option)
            lines.append(f"| `{option}` | `{default}` | {field.description} |")
        lines.append("")
    return "\n".join(lines)


def with_table(readme: str) -> str:
    """Return the README with its method table renewed."""
    return re.sub(
        r"(<!-- methods -->\n).*?(<!-- /methods -->)", lambda m: m[1] + method_table() + "\n" + m[2], readme, flags=re.S
    )


def main() -> None:
    """Write both files."""
    (ROOT / "docs" / "methods.md").write_text(methods_page())
    readme = ROOT / "README.md"
    readme.write_text(with_table(readme.read_text()))


if __name__ == "__main__":
    main()
