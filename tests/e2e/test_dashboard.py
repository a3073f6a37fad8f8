"""The Grafana dashboard: every name in it is exported by a running server, every query is one that Prometheus
understands, and the file has the shape that Grafana imports. No Grafana has drawn it."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from tests.detection.test_alert_rules import promtool
from tests.e2e.nodes import metrics
from tests.e2e.test_detection import WITH_TLS
from tests.e2e.world import ROOT, Server
from tests.http import anchors

DASHBOARD = json.loads((ROOT / "deploy/grafana/sequencer.json").read_text())
SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def queries() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel["targets"]]


def test_the_dashboard_shows_no_name_that_nobody_exports(server: Server) -> None:
    found = metrics(server) | anchors.exported()
    exported = {name.partition("{")[0] for name in found}
    shown = {name for query in queries() for name in re.findall(r"\bsequencer_\w+", query)}
    assert len(shown) > 20
    assert shown - exported - WITH_TLS == set()


def test_every_label_that_a_legend_or_a_sum_names_is_on_the_metric(server: Server) -> None:
    found = metrics(server) | anchors.exported()
    of_prometheus = {"instance", "job", "le"}
    seen = 0
    for panel in panels():
        for target in panel["targets"]:
            names = re.findall(r"\bsequencer_\w+", target["expr"])
            told = {
                label
                for name in found
                if name.partition("{")[0] in names
                for label in re.findall(r"(\w+)=", name)
            }
            named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            named |= {
                one for group in re.findall(r"by \(([^)]*)\)", target["expr"]) for one in group.split(", ")
            }
            assert named - of_prometheus <= told, panel["title"]
            seen += len(named - of_prometheus)
    assert seen > 5


def test_prometheus_understands_every_query(tmp_path: Any) -> None:
    filled = [query.replace("$job", ".*").replace("$instance", ".*") for query in queries()]
    rules = [{"record": f"panel:{n}", "expr": query} for n, query in enumerate(filled)]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", str(file))


def test_the_dashboard_has_the_shape_that_grafana_imports() -> None:
    assert re.fullmatch(r"[\w-]{1,40}", DASHBOARD["uid"])
    assert DASHBOARD["schemaVersion"] >= 36
    assert "id" not in DASHBOARD, "the number of another Grafana's database"
    assert "__inputs" not in DASHBOARD
    variables = {one["name"]: one for one in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    assert {"job", "instance"} <= set(variables)
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(numbers) == len(set(numbers))
    for panel in panels():
        assert panel["datasource"] == SOURCE
        assert {str(target["datasource"]) for target in panel["targets"]} == {str(SOURCE)}
        assert panel["title"]
        assert panel["description"]
        assert all('job=~"$job", instance=~"$instance"' in target["expr"] for target in panel["targets"])


def test_no_panel_lies_on_another() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not taken & cells, panel["title"]
        taken |= cells
