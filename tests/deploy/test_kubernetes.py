"""The manifests that we hand out: valid by the schemas of Kubernetes, and with no right they do not need.

No cluster has seen them; ``kubernetes-validate`` has, which holds the API's own schemas.
"""

from __future__ import annotations

import pytest
import yaml

from tests.deploy.objects import (
    Object,
    check_by_schema,
    check_least_rights,
    check_probes,
    check_settings,
    environment,
    pods,
)
from tests.e2e.world import ROOT

FILES = sorted((ROOT / "deploy/kubernetes").glob("*.yaml"))


def objects() -> list[Object]:
    return [one for file in FILES for one in yaml.safe_load_all(file.read_text())]


def test_every_manifest_is_valid_by_the_schemas_of_kubernetes() -> None:
    check_by_schema(objects())
    (stateful,) = [one for one in objects() if one["kind"] == "StatefulSet"]
    stateful["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(Exception, match="readinesProbe"):
        check_by_schema([stateful])


def test_the_pod_has_the_least_rights_probes_and_an_end_that_is_long_enough() -> None:
    (pod,) = pods(objects())
    check_least_rights(pod)
    check_probes(pod)
    check_settings(environment(pod), pod)


def test_the_anchors_pod_has_the_least_rights_and_its_secret_is_in_no_other() -> None:
    (anchor,) = [one for one in objects() if one["kind"] == "Deployment"]
    pod = anchor["spec"]["template"]["spec"]
    check_least_rights(pod)
    check_settings(environment(pod), pod)
    assert (environment(pod)["ANCHOR"], pod["containers"][0]["args"]) == ("apart", ["anchor", "run"])
    assert anchor["spec"]["replicas"] == 0, "nothing anchors before somebody prepared it"
    (server,) = pods(objects())
    assert "sequencer-anchor" not in str(server)
    assert pod["serviceAccountName"] == "sequencer-anchor" != server["serviceAccountName"]


def test_the_service_and_the_budget_find_the_pods() -> None:
    found = {one["kind"]: one for one in objects()}
    labels = found["StatefulSet"]["spec"]["template"]["metadata"]["labels"]
    assert found["Service"]["spec"]["selector"] == labels
    assert found["PodDisruptionBudget"]["spec"]["selector"] == {"matchLabels": labels}
    assert found["NetworkPolicy"]["spec"]["podSelector"] == {"matchLabels": labels}
