"""The command line: ``python -m influence_core --help``.

Every output names rows by their ids. Exit code 0, 2 for bad input (one line: what, why, fix), 130 when cancelled.
"""

from __future__ import annotations

import sys

import typer

from influence_core.allocation import keep_freed_memory
from influence_core.commands import app
from influence_core.commands.base import TrustedModels, allow_models
from influence_core.commands.work import CANCELLED
from influence_core.errors import Cancelled, InfluenceError


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    keep_freed_memory()
    try:
        result = app(_spread(argv if argv is not None else sys.argv[1:]), standalone_mode=False)
        if result == CANCELLED:  # typer turns Ctrl-C into this code without a word
            raise Cancelled
        return result if isinstance(result, int) else 0
    except InfluenceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (Cancelled, KeyboardInterrupt, typer.Abort):
        print("cancelled: everything finished so far is kept.", file=sys.stderr)
        return CANCELLED
    except typer.Exit as error:
        return error.exit_code
    except Exception as error:
        # typer's own complaints format themselves; anything else is a fault of ours and keeps its trace.
        complaint = getattr(error, "format_message", None)
        if complaint is None:
            raise
        print(f"error: {complaint()}", file=sys.stderr)
        return 2


def _spread(argv: list[str]) -> list[str]:
    """Return ``--metric loo mislabel`` as ``--metric loo --metric mislabel``: a bare word would count as a method."""
    if not {"--metric", "--metrics"} & set(argv):
        return argv
    from influence_core.metrics import METRICS

    words, follows = [], False
    for i, word in enumerate(argv):
        named = i > 0 and argv[i - 1] in ("--metric", "--metrics")
        follows = word in METRICS and (named or follows)
        words += ["--metric", word] if follows and not named else [word]
    return words


@app.callback(help=__doc__)
def trusting(model: TrustedModels = None) -> None:
    """Trust the models that are named, here and in processes that this one starts."""
    allow_models(model or [])


if __name__ == "__main__":
    sys.exit(main())
