"""The sums of a load test, and the report made of them."""

import json
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from anyon.loads.reports import markdown, write
from anyon.loads.results import Container, Reading, Result, Sample, latencies, percentile


def result(samples: list[Sample], listing: str | None = None) -> Result:
    """Return a result of these samples."""
    return Result(
        profile="plan",
        server="http://server",
        version="1.2.3",
        projects=2,
        tasks=4,
        started_at=datetime(2026, 1, 2, tzinfo=UTC),
        wall_seconds=1.5,
        samples=samples,
        containers=[Container(project="p", name="load-0", phase="running")],
        readings=[
            Reading(at_seconds=0, resident_bytes=1e8, open_fds=20),
            Reading(at_seconds=9, resident_bytes=1.1e8, open_fds=21),
        ],
        metrics="# metrics\n",
        engine_listing=listing,
    )


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=300), st.integers(1, 10_000))
def test_a_percentile_is_a_value_that_covers_its_share(values: list[float], share: int) -> None:
    """At least the share is not above it, and less than the share is below it."""
    found = percentile(sorted(values), share / 10_000)
    assert sum(value <= found for value in values) * 10_000 >= share * len(values)
    assert sum(value < found for value in values) * 10_000 < share * len(values)


def test_failures_are_counted_and_not_measured() -> None:
    """A refusal that came quickly makes no latency better."""
    good = [Sample(operation="create", seconds=second) for second in (3.0, 1.0, 2.0)]
    bad = [Sample(operation="create", seconds=0.001, failure="quota_exceeded")] * 2
    (one,) = latencies([*bad, *good])
    assert (one.count, one.failed, dict(one.failures)) == (5, 2, {"quota_exceeded": 2})
    assert (one.shares["p50"], one.longest) == (2.0, 3.0)


def test_the_report_says_what_failed(tmp_path: Path) -> None:
    """All files are there; the numbers of the JSON are those of the text; the chart asks nobody."""
    samples = [
        Sample(operation="task done", seconds=0.25),
        Sample(operation="task done", seconds=9.0, failure="took_too_long"),
        Sample(operation="delete", seconds=1.0, failure="conflict"),
    ]
    names = {path.name for path in write(result(samples, "CONTAINER ID\n"), tmp_path / "a/b")}
    assert names == {
        "report.md",
        "report.json",
        "chart.svg",
        "containers.json",
        "metrics.txt",
        "docker-ps.txt",
    }
    text = (tmp_path / "a/b/report.md").read_text()
    assert "| task done | 2 | 1 | 250 ms |" in text
    assert "| delete | 1 | 1 | - |" in text
    assert "`took_too_long`, 1 times" in text
    assert "2 operations failed" in text
    document = json.loads(
        (tmp_path / "a/b/report.json").read_text(), parse_constant=lambda _: 1 / 0
    )
    assert document["failed"] == 2
    assert document["operations"][0]["seconds"]["p50"] == 0.25
    assert document["operations"][1]["seconds"]["p50"] is None
    drawing = ET.fromstring((tmp_path / "a/b/chart.svg").read_text())
    loaded = [
        value
        for element in drawing.iter()
        for name, value in element.attrib.items()
        if name.endswith(("href", "src")) and "//" in value
    ]
    assert loaded == []


def test_nothing_failed_is_said() -> None:
    """A clean run says so, and has no list of failures."""
    text = markdown(result([Sample(operation="create", seconds=0.1)]))
    assert "nothing failed" in text
    assert "## Failures" not in text
