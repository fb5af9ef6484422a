"""Numbers as people read them."""

from __future__ import annotations

import numpy as np


def figure(value: float) -> str:
    """Return a number as people write it: whole digits in full, at least four significant, no idle zeros."""
    size = abs(value)
    if size >= 1e12 or 0 < size < 1e-4:
        return f"{value:.3e}".replace("-", "−", 1) if value < 0 else f"{value:.3e}"
    digits = max(0, 3 - int(np.floor(np.log10(size)))) if size else 0
    shown = f"{value:,.{digits}f}" if size >= 9999.5 else f"{value:.{digits}f}"
    shown = shown.rstrip("0").rstrip(".") if "." in shown else shown
    return "0" if shown == "-0" else shown.replace("-", "−", 1)
