"""A load test's report as files: Markdown for people, JSON for programs, a chart, the raw collections."""

import json
from collections import Counter
from pathlib import Path

from anyon.loads.charts import draw
from anyon.loads.results import Result, latencies


def markdown(result: Result) -> str:
    """Return the report for people; ``chart.svg`` is meant to lie beside it."""
    load = f"{result.projects} projects" + (f", {result.tasks} tasks" if result.tasks else "")
    version = result.version or "of unknown version"
    failed = f"{result.failed} operations failed" if result.failed else "nothing failed"
    lines = [
        f"# Load test `{result.profile}`",
        "",
        f"{load} against {result.server} (Anyon {version}), {result.started_at:%Y-%m-%d %H:%M} UTC.",
        "",
        f"**{result.wall_seconds:.1f} s in all; {failed}.**",
        "",
        "| operation | count | failed | p50 | p90 | p95 | p99 | max |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for one in latencies(result.samples):
        times = [*one.shares.values(), one.longest]
        shown = ["-"] * len(times)
        if one.count > one.failed:
            shown = [f"{1000 * value:.0f} ms" for value in times]
        lines.append(f"| {one.operation} | {one.count} | {one.failed} | {' | '.join(shown)} |")
    lines += ["", "![latencies](chart.svg)", "", *_failures(result), *_containers(result)]
    return "\n".join([*lines, *_readings(result)]).rstrip() + "\n"


def _failures(result: Result) -> list[str]:
    found = Counter((s.operation, s.failure) for s in result.samples if s.failure is not None)
    if not found:
        return []
    rows = [f"- {operation}: `{code}`, {count} times" for (operation, code), count in found.items()]
    return ["## Failures", "", *rows, ""]


def _containers(result: Result) -> list[str]:
    phases = Counter(one.phase for one in result.containers)
    words = ", ".join(f"{count} {phase}" for phase, count in sorted(phases.items())) or "none"
    return [
        "## Containers",
        "",
        f"{len(result.containers)} projects at the end of the load: {words}.",
        "The list is in `containers.json`, the server's metrics in `metrics.txt`.",
        "",
    ]


def _readings(result: Result) -> list[str]:
    if len(result.readings) < 2:
        return []
    rows = [
        f"| {one.at_seconds:.0f} s | {one.resident_bytes / 1e6:.1f} MB | {one.open_fds:.0f} |"
        for one in result.readings
    ]
    head = ["| after | server's memory | open files |", "|--:|--:|--:|"]
    return ["## The server over time", "", *head, *rows, ""]


def write(result: Result, out: Path) -> list[Path]:
    """Write all files of the report into *out*, which is made; return their paths."""
    out.mkdir(parents=True, exist_ok=True)
    document = result.as_json()
    texts = {
        "report.md": markdown(result),
        "report.json": json.dumps(document, ensure_ascii=False, indent=2) + "\n",
        "chart.svg": draw(result),
        "containers.json": json.dumps(document["containers"], ensure_ascii=False, indent=2) + "\n",
        "metrics.txt": result.metrics,
    }
    if result.engine_listing is not None:
        texts["docker-ps.txt"] = result.engine_listing
    for name, text in texts.items():
        (out / name).write_text(text, encoding="utf-8")
    return [out / name for name in texts]
