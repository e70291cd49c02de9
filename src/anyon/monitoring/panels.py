"""The kinds of panels that the dashboards are made of, on Grafana's own builders, and what many of them ask.

Each kind takes a title, queries, a unit (Grafana's name of it, from the SDK's ``units``) and
``about``: a sentence that a person reads who holds the mouse over the title.
"""

from typing import TypeVar

from grafana_foundation_sdk.builders import (
    common,
    heatmap,
    prometheus,
    stat,
    table,
    timeseries,
)
from grafana_foundation_sdk.builders import dashboard as dashboards
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    GraphTresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    ScaleDistribution,
    SortOrder,
    TooltipDisplayMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import (
    Dashboard,
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    DataTransformerConfig,
    Threshold,
    ThresholdsMode,
)
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

Panel = timeseries.Panel | stat.Panel | heatmap.Panel | table.Panel
Query = prometheus.Dataquery
_Kind = TypeVar("_Kind", timeseries.Panel, stat.Panel, heatmap.Panel, table.Panel)

_SOURCE = DataSourceRef(type_val="prometheus", uid="anyon-prometheus")
_TAG = "anyon"
_WIDTH, _HEIGHT = 8, 8  # of Grafana's 24 columns: three panels in a row


def dashboard(uid: str, title: str, about: str, *panels: Panel) -> Dashboard:
    """Return a dashboard of *panels*, in order. ``uid`` is its stable name in Grafana's addresses."""
    others = dashboards.DashboardLink("Anyon").type(DashboardLinkType.DASHBOARDS).tags([_TAG])
    built = (
        dashboards.Dashboard(title)
        .uid(uid)
        .description(about)
        .tags([_TAG])
        .links([others.as_dropdown(True).keep_time(True)])
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .time("now-1h", "now")
        .refresh("15s")
        .editable()
    )
    for number, panel in enumerate(panels, start=1):
        built.with_panel(panel.id(number))
    return built.build()


def query(expr: str, legend: str = "") -> Query:
    """Return an expression, and the legend of each series it returns (``{{label}}`` is filled in)."""
    return prometheus.Dataquery().expr(expr).legend_format(legend)


def quantile(metric: str, *labels: str, share: float = 0.95) -> Query:
    """Return the question for a histogram's quantile in five minutes, by *labels*; with exemplars."""
    rates = f"sum by ({', '.join((*labels, 'le'))}) (rate({metric}_bucket[5m]))"
    legend = _legend(labels) or f"p{share * 100:g}"
    return query(f"histogram_quantile({share:g}, {rates})", legend).exemplar(True)


def per_second(metric: str, *labels: str) -> Query:
    """Return the question for how fast something is counted, by *labels*."""
    return query(f"sum by ({', '.join(labels)}) (rate({metric}[5m]))", _legend(labels))


def counted(metric: str, *labels: str, within: str = "15m") -> Query:
    """Return the question for how much was counted in the last while, by *labels*."""
    return query(f"sum by ({', '.join(labels)}) (increase({metric}[{within}]))", _legend(labels))


def _legend(labels: tuple[str, ...]) -> str:
    return " ".join(f"{{{{{label}}}}}" for label in labels)


def curves(
    title: str,
    *queries: Query,
    about: str,
    unit: str = units.Short,
    red_from: float | None = None,
) -> timeseries.Panel:
    """Return curves over time; a red line at *red_from*, if that is given."""
    panel = (
        timeseries.Panel()
        .min(0)
        .line_width(1)
        .fill_opacity(10)
        .show_points(VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs(["last"])
        )
        .tooltip(
            common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING)
        )
    )
    if red_from is not None:
        line = common.GraphThresholdsStyleConfig().mode(GraphTresholdsStyleMode.LINE)
        panel.thresholds(_steps("green", red_from, "red")).thresholds_style(line)
    return _dressed(panel, title, queries, about=about, unit=unit)


def number(
    title: str,
    *queries: Query,
    about: str,
    unit: str = units.Short,
    green_from: float | None = None,
    red_from: float | None = None,
) -> stat.Panel:
    """Return the last value of each query, large: red below *green_from*, or from *red_from* on."""
    panel = (
        stat.Panel()
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
        .color_mode(BigValueColorMode.VALUE)
    )
    if green_from is not None:
        panel.thresholds(_steps("red", green_from, "green"))
    if red_from is not None:
        panel.thresholds(_steps("green", red_from, "red"))
    return _dressed(panel, title, queries, about=about, unit=unit)


def heat(title: str, metric: str, *, about: str, unit: str = units.Seconds) -> heatmap.Panel:
    """Return how a histogram's values are spread, over time; the darker, the more of them."""
    asked = counted(f"{metric}_bucket", "le", within="5m").format(PromQueryFormat.HEATMAP)
    panel = (
        heatmap.Panel()
        .calculate(False)
        .y_axis(heatmap.YAxisConfig().unit(unit))
        .color(
            heatmap.HeatmapColorOptions()
            .mode(HeatmapColorMode.SCHEME)
            .scheme("Oranges")
            .fill("dark-orange")
            .exponent(0.5)
            .steps(64)
        )
        .scale_distribution(common.ScaleDistributionConfig().type(ScaleDistribution.LINEAR))
        .show_tooltip()
    )
    return _dressed(panel, title, (asked.exemplar(True),), about=about, unit=units.Short)


def ranking(title: str, values: str, label: str, *, about: str, unit: str) -> table.Panel:
    """Return a table of the ten greatest of *values* now, by *label*."""
    asked = prometheus.Dataquery().expr(f"topk(10, sum by ({label}) ({values}))")
    panel = (
        table.Panel()
        .sort_by([common.TableSortByFieldState().display_name("Value").desc(True)])
        .transformations(
            [DataTransformerConfig("organize", options={"excludeByName": {"Time": True}})]
        )
    )
    asked.instant().format(PromQueryFormat.TABLE)
    return _dressed(panel, title, (asked,), about=about, unit=unit)


def _steps(below: str, limit: float, from_there: str) -> dashboards.ThresholdsConfig:
    steps = [Threshold(color=below), Threshold(value=limit, color=from_there)]
    return dashboards.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


def _dressed(
    panel: _Kind, title: str, queries: tuple[Query, ...], *, about: str, unit: str
) -> _Kind:
    """Give a panel what all kinds have; its queries are named A, B, C and so on."""
    for place, asked in enumerate(queries):
        asked.ref_id(chr(ord("A") + place)).datasource(_SOURCE)
    return (
        panel.title(title)
        .description(about)
        .unit(unit)
        .datasource(_SOURCE)
        .targets(list(queries))
        .span(_WIDTH)
        .height(_HEIGHT)
    )
