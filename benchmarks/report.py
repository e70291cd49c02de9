"""What a benchmark says: rows of a value, its reference in the same run, and the target for their ratio."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

QUICK = "ANYON_BENCH_QUICK"
"""Set for a run that only shows that all of it runs (``./bench … --quick``)."""


def rounds(usual: int) -> int:
    """Return how often to measure: *usual*, or twice where the run is to be quick."""
    return min(usual, 2) if QUICK in os.environ else usual


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One measured thing. ``target_ratio`` bounds value/reference_value from above; None has no target."""

    what: str
    value: float
    unit: str
    reference: str
    reference_value: float
    target_ratio: float | None

    @property
    def ratio(self) -> float:
        """How many times the reference the value is."""
        return self.value / self.reference_value

    @property
    def met(self) -> bool:
        """Whether the target is reached; without one, always."""
        return self.target_ratio is None or self.ratio <= self.target_ratio

    def as_json(self) -> dict[str, Any]:
        """Return the row as the object that ``--json`` prints."""
        return {
            "what": self.what,
            "value": round(self.value, 4),
            "unit": self.unit,
            "reference": self.reference,
            "reference_value": round(self.reference_value, 4),
            "ratio": round(self.ratio, 4),
            "target_ratio": self.target_ratio,
            "met": self.met,
        }


def machine() -> dict[str, Any]:
    """Return what the figures were measured on."""
    return {
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": [round(load, 2) for load in os.getloadavg()],
    }


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which *share* (0 to 1) of *values* lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def show(name: str, rows: Sequence[Row], *, as_json: bool, seconds: float) -> None:
    """Print a table, and with *as_json* one object as the last line."""
    table = Table(title=f"{name} (load {os.getloadavg()[0]:.1f})")
    for column in ("what", "value", "reference", "ratio", "target", "met"):
        table.add_column(column)
    for row in rows:
        table.add_row(
            row.what,
            f"{row.value:.3g} {row.unit}",
            f"{row.reference_value:.3g} {row.unit} ({row.reference})",
            f"{row.ratio:.2f}x",
            "" if row.target_ratio is None else f"≤ {row.target_ratio:g}x",
            "yes" if row.met else "NO",
        )
    Console().print(table)
    if as_json:
        document = {
            "bench": name,
            "machine": machine(),
            "seconds": round(seconds),
            "rows": [row.as_json() for row in rows],
        }
        print(json.dumps(document))
