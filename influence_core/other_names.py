"""Names of the literature that are no method here but something else: what each is, and what to call for it.

Asking for one as a method answers with these words. A test holds the table against what is really there.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class OtherName:
    """What a name stands for.

    Attributes:
        what: In a clause: ``a diagnostic of the model``.
        python: The call from Python.
        command: The same from the command line.
    """

    what: str
    python: str
    command: str

    @property
    def fix(self) -> str:
        """Return what to call, in one sentence."""
        return f"Call {self.python}, or {self.command}."


def _diagnostic(name: str, what: str = "a diagnostic, not a score of rows") -> OtherName:
    command = f"python -m influence_core diagnose STUDY --workflow {name}"
    return OtherName(what, f"diagnose(study, '{name}')", command)


def _metric(name: str) -> OtherName:
    return OtherName(
        "a metric that judges methods", f"evaluate(study, ['if_exact'], ['{name}'])",
        f"python -m influence_core evaluate STUDY --methods if_exact --metrics {name}",
    )  # fmt: skip


def _proposer(name: str, function: str) -> OtherName:
    return OtherName(
        "a workflow that proposes changes of rows", f"influence_core.workflows.{function}.{function}(study)",
        f"python -m influence_core propose STUDY --workflow {name} --out patch.csv",
    )  # fmt: skip


OTHER_NAMES = {
    **{
        name: _diagnostic(name)
        for name in (
            "fragility_suite", "influence_fading", "if_finetune_check", "pbrf", "critical_sample_ratio",
            "loss_sensitivity", "gini_sensitivity", "influence_curve",
        )
    },
    "if_input_grad": _diagnostic("if_input_grad", "a derivative in the inputs of training rows, not a score of rows"),
    "score_uncertainty": _diagnostic("score_uncertainty", "what bayes_tda knows beside a score: spread and p-values"),
    "error_bars": _diagnostic("error_bars", "what infinitesimal_jackknife knows beside a score: standard errors"),
    **{name: _metric(name) for name in ("lds", "removal", "mislabel", "agreement", "randomised")},
    "rdia": _proposer("rdia", "relabel_rdia"),
    "selfinf": _proposer("selfinf", "reweigh_selfinf"),
    "probes": _proposer("probes", "probe_relabel"),
    "relabel_rdia": _proposer("rdia", "relabel_rdia"),
    "reweigh_selfinf": _proposer("selfinf", "reweigh_selfinf"),
    "probe_relabel": _proposer("probes", "probe_relabel"),
}  # fmt: skip
