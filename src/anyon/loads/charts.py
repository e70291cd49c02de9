"""The picture of a load test: for each operation, which share of it was done within which time."""

import sys

import pygal
from pygal.style import CleanStyle

from anyon.loads.results import Result

# pygal puts an importer of the kind that Python has given up on the path, for maps that are not
# used here; every later import in the process would warn of it.
sys.meta_path[:] = [finder for finder in sys.meta_path if hasattr(finder, "find_spec")]

_POINTS = 200


def draw(result: Result) -> str:
    """Return the chart as an SVG document that loads nothing from anywhere."""
    chart = pygal.XY(
        title=f"Load test {result.profile}: share done within the time",
        x_title="milliseconds",
        y_title="% of the operation",
        range=(0, 100),
        stroke=True,
        show_dots=False,
        style=CleanStyle,
        js=[],  # pygal's own tooltips are a script from another host
        legend_at_bottom=True,
        no_data_text="nothing succeeded",
    )
    for operation in dict.fromkeys(sample.operation for sample in result.samples):
        times = sorted(
            sample.seconds
            for sample in result.samples
            if sample.operation == operation and sample.failure is None
        )
        chart.add(operation, _curve(times))
    return str(chart.render(is_unicode=True))


def _curve(times: list[float]) -> list[tuple[float, float]]:
    """Return (milliseconds, percent) points of the cumulative distribution, _POINTS at most."""
    step = max(1, len(times) // _POINTS)
    picked = sorted({*range(0, len(times), step), len(times) - 1} - {-1})
    return [(1000 * times[index], 100 * (index + 1) / len(times)) for index in picked]
