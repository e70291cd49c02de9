"""docs/benchmarks.md: written from the results kept beside it, so that one new run changes one table."""

import importlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1] / "docs"
RESULTS = DOCS / "benchmarks.json"
PAGE = DOCS / "benchmarks.md"

_HEAD = """# Benchmarks

Written by `./bench all --write` (or `./bench NAME… --write` for some); do not edit, the explanations are the
benchmarks' own. Every figure stands beside a reference that was measured in the same run on the same machine, so what is to
be compared is the *ratio*: absolute times are those of one small machine, and of its load at that moment, which is noted.
A target is from the design; *NO* is a target missed.
"""


def keep(document: dict[str, Any]) -> None:
    """Keep one benchmark's results and write the page anew."""
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    results[document["bench"]] = {
        **document,
        "at": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
    ordered = dict(sorted(results.items()))
    RESULTS.write_text(json.dumps(ordered, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    PAGE.write_text(page(ordered), encoding="utf-8")


def page(results: dict[str, dict[str, Any]]) -> str:
    """Return the whole page."""
    return _HEAD + "".join(f"\n{_section(name, one)}" for name, one in results.items())


def _section(name: str, result: dict[str, Any]) -> str:
    machine = result["machine"]
    where = (
        f"{machine['cores']} cores, {machine['memory_gib']} GiB, Linux {machine['kernel']}, "
        f"Python {machine['python']}, load {machine['load'][0]}"
    )
    took = f", {result['seconds']} s" if "seconds" in result else ""
    lines = [
        f"## {name}",
        "",
        _explanation(name),
        "",
        f"`./bench {name}`, {result['at']}{took}; {where}.",
        "",
        "| what | value | reference | ratio | target | met |",
        "|---|--:|--:|--:|--:|---|",
    ]
    for row in result["rows"]:
        target = "" if row["target_ratio"] is None else f"≤ {row['target_ratio']:g}x"
        met = "" if row["target_ratio"] is None else ("yes" if row["met"] else "NO")
        lines.append(
            f"| {row['what']} | {row['value']:.3g} {row['unit']} "
            f"| {row['reference_value']:.3g} {row['unit']} ({row['reference']}) "
            f"| {row['ratio']:.2f}x | {target} | {met} |"
        )
    return "\n".join(lines) + "\n"


def _explanation(name: str) -> str:
    """Return the benchmark's own words: the whole docstring of its module."""
    doc = importlib.import_module(f"benchmarks.{name.replace('-', '_')}").__doc__ or ""
    return doc.strip()
