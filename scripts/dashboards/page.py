"""A page: sections of panels laid out on Grafana's grid, with variables and links to the other pages."""

from collections.abc import Sequence

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models import dashboard as models

from scripts.dashboards.panels import SOURCE, Panel

WIDTH = 24
TAG = "miaas"


class Section:
    """Panels of one height and width beside one another, under a heading."""

    def __init__(self, title: str, height: int, *panels: Panel) -> None:
        assert WIDTH % len(panels) == 0, f"{title}: {len(panels)} panels do not fill the line"
        self.title, self.height, self.panels = title, height, panels


def page(
    name: str, title: str, description: str, sections: Sequence[Section], *choices: dashboard.QueryVariable
) -> models.Dashboard:
    """The dashboard `miaas-<name>`; `choices` are the variables beside the data source."""
    result = (
        dashboard.Dashboard(f"MIaaS / {title}")
        .uid(f"miaas-{name}")
        .description(description)
        .tags([TAG])
        .time("now-1h", "now")
        .refresh("30s")
        .timezone("browser")
        .readonly()
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .link(_other_pages())
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .annotation(_alerts())
    )
    for choice in choices:
        result.with_variable(choice)
    top, number = 0, 0
    for section in sections:
        number += 1
        heading = models.GridPos(x=0, y=top, w=WIDTH, h=1)
        result.with_row(dashboard.Row(section.title).id(number).grid_pos(heading))
        top += 1
        width = WIDTH // len(section.panels)
        for place, panel in enumerate(section.panels):
            number += 1
            position = models.GridPos(x=place * width, y=top, w=width, h=section.height)
            result.with_panel(panel.id(number).grid_pos(position))
        top += section.height
    return result.build()


def choice(name: str, label: str, query: str) -> dashboard.QueryVariable:
    """A variable that takes any number of the values that `query` finds, at first all."""
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query({"query": query, "refId": name})
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".+")
        .current(models.VariableOption(selected=True, text="All", value="$__all"))
    )


def _other_pages() -> dashboard.DashboardLink:
    return (
        dashboard.DashboardLink("MIaaS")
        .type(models.DashboardLinkType.DASHBOARDS)
        .tags([TAG])
        .keep_time(True)
        .include_vars(True)
    )


def _alerts() -> dashboard.AnnotationQuery:
    """Marks on every panel where an alert began to fire."""
    return (
        dashboard.AnnotationQuery()
        .name("Alerts")
        .datasource(SOURCE)
        .enable(True)
        .icon_color("red")
        .expr('ALERTS{alertname=~"Miaas.*", alertstate="firing"}')
    )
