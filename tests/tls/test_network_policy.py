"""The Kubernetes file that we hand out opens what it says and nothing more."""

from __future__ import annotations

from typing import Any

import yaml

from tests.e2e.world import ROOT

POLICY = ROOT / "deploy" / "kubernetes" / "network-policy.yaml"


def doors(rules: list[dict[str, Any]], side: str) -> list[tuple[str, list[int]]]:
    return [(str(rule[side]), [port["port"] for port in rule["ports"]]) for rule in rules]


def test_the_policy_opens_each_port_to_those_who_need_it() -> None:
    anchor, policy = yaml.safe_load_all(POLICY.read_text())
    spec = policy["spec"]
    assert policy["kind"] == "NetworkPolicy"
    assert set(spec["policyTypes"]) == {"Ingress", "Egress"}
    comes = doors(spec["ingress"], "from")
    assert [(("ingress-nginx" in who), ("monitoring" in who), ports) for who, ports in comes] == [
        (True, False, [8080]),
        (False, True, [8082]),
    ]
    goes = doors(spec["egress"], "to")
    assert [ports for _, ports in goes] == [[5432], [53, 53], [443]]
    assert "169.254.0.0/16" in goes[2][0]
    assert all(rule["from"] for rule in spec["ingress"])
    assert all(rule["to"] for rule in spec["egress"])
    assert anchor["spec"]["podSelector"] == {"matchLabels": {"app": "sequencer-anchor"}}
    assert anchor["spec"]["ingress"] == [], "nobody speaks to the anchor"
    assert anchor["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert anchor["spec"]["egress"] == spec["egress"]
