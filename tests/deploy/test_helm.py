"""The Helm chart, rendered by Helm's own engine: what comes out is valid, hardened and starts; what would be
insecure or could not start is refused with the value to set."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml

from config.settings import Settings
from tests.deploy.objects import (
    Object,
    check_by_schema,
    check_least_rights,
    check_probes,
    check_settings,
    doors,
    environment,
    pods,
)
from tests.deploy.tools import require
from tests.e2e.world import ROOT

CHART = ROOT / "deploy/helm/sequencer"
Values = dict[str, Any]

LEAST: Values = {
    "image": {"repository": "registry.example/sequencer", "digest": "sha256:" + "a" * 64},
    "nodeIdPrefix": "6f1d3c1e-0000-4000-8000-00000000000",
    "secrets": {"existingSecret": "sequencer"},
    "migrations": {"existingSecret": "sequencer-owner"},
    "tls": {"secretName": "sequencer-tls"},
}


def merged(values: Values, more: Values) -> Values:
    out = copy.deepcopy(values)
    for name, value in more.items():
        both = isinstance(value, dict) and isinstance(out.get(name), dict)
        out[name] = merged(out[name], value) if both else value
    return out


SETS: dict[str, Values] = {
    "least": LEAST,
    "behind an ingress": merged(
        LEAST,
        {
            "tls": {"mode": "proxy", "secretName": "", "acceptClearTextInCluster": True},
            "trustedProxies": "10.8.0.0/16",
            "ingress": {"enabled": True, "host": "sequencer.example.com", "tlsSecretName": "ingress-tls"},
        },
    ),
    "database elsewhere": merged(
        LEAST, {"database": {"cidrs": ["198.51.100.7/32"], "caConfigMap": "database-ca", "port": 6432}}
    ),
    "anchoring": merged(
        LEAST,
        {"anchor": {"existingSecret": "anchor", "chainId": 84_532_001, "contract": "0x" + "ab" * 20}},
    ),
    "three nodes, watched": merged(
        LEAST,
        {
            "replicas": 3,
            "admin": {"expose": True, "allowlist": "127.0.0.0/8,10.8.0.0/16"},
            "monitoring": {
                "serviceMonitor": {"enabled": True, "existingSecret": "monitor"},
                "prometheusRule": {"enabled": True},
            },
            "settings": {"LOG_LEVEL": "warning", "JWT_ISSUER": "https://issuer.example"},
            "secrets": {"jwtSecretKey": "jwt-secret"},
        },
    ),
}


def render(values: Values) -> list[Object]:
    require("helm_python")
    import helm_python

    with helm_python.Chart.load(str(CHART)) as chart:
        chart.validate_schema(values)
        texts = chart.render(values, name="shop", namespace="stateset")
    made = [text for name, text in texts.items() if name.endswith(".yaml")]
    return [one for text in made for one in yaml.safe_load_all(text) if one]


def kinds(found: list[Object]) -> dict[str, list[Object]]:
    return {kind: [one for one in found if one["kind"] == kind] for kind in {one["kind"] for one in found}}


def stateful(found: list[Object]) -> Object:
    (one,) = kinds(found)["StatefulSet"]
    pod: Object = one["spec"]["template"]["spec"]
    return pod


def test_helm_lints_the_chart_without_a_finding() -> None:
    require("helm_python")
    import helm_python

    said = helm_python.lint(str(CHART))
    assert said["total_charts_linted"] == 1
    assert [one for one in said["messages"] if one["error"] != "icon is recommended"] == []


@pytest.mark.parametrize("name", SETS)
def test_what_comes_out_is_valid_hardened_and_starts(name: str) -> None:
    found = render(SETS[name])
    check_by_schema(found)
    assert len(pods(found)) == 2
    for pod in pods(found):
        check_least_rights(pod)
    pod = stateful(found)
    check_probes(pod)
    replicas = SETS[name].get("replicas", 1)
    nodes = [environment(pod, index) for index in range(replicas)]
    for given in nodes:
        check_settings(given, pod)
    for own in ("VES_SEQUENCER_ID", "VES_SEQUENCER_SIGNING_KEY_FILE"):
        assert len({given[own] for given in nodes}) == replicas, "each node has its own"
    assert nodes[0]["RATE_LIMIT_SHARED"] == ("true" if replicas > 1 else "false")


@pytest.mark.parametrize("name", SETS)
def test_the_network_policy_opens_to_those_who_need_it_and_to_nobody_else(name: str) -> None:
    found = kinds(render(SETS[name]))
    server, migrations = sorted(found["NetworkPolicy"], key=lambda one: len(one["metadata"]["name"]))
    comes, goes = doors(server)
    exposed = SETS[name].get("admin", {}).get("expose", False)
    assert ["ingress-nginx" in who for who, _ in comes] == [True, False][: len(comes)]
    assert [ports for _, ports in comes] == [[8080], [8082]][: 1 + exposed]
    elsewhere = SETS[name].get("database", {})
    assert [ports for _, ports in goes] == [[elsewhere.get("port", 5432)], [53, 53], [443]]
    assert ("198.51.100.7/32" in goes[0][0]) == bool(elsewhere)
    assert ("'app': 'postgres'" in goes[0][0]) != bool(elsewhere)
    assert "169.254.0.0/16" in goes[2][0]
    comes, goes = doors(migrations)
    assert comes == []
    assert [ports for _, ports in goes] == [[elsewhere.get("port", 5432)], [53, 53]]
    for policy, kind in ((server, "StatefulSet"), (migrations, "Job")):
        labels = found[kind][0]["spec"]["template"]["metadata"]["labels"]
        assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items()


def test_the_chains_secrets_are_a_secret_of_their_own_and_there_only_when_somebody_anchors() -> None:
    assert not [name for name in environment(stateful(render(LEAST))) if "ANCHOR" in name or "L2" in name]
    pod = stateful(render(SETS["anchoring"]))
    given = environment(pod)
    assert (given["ANCHOR"], given["L2_CHAIN_ID"]) == ("inside", "84532001")
    assert Settings(_env_file=None, set_registry_address=given["SET_REGISTRY_ADDRESS"]).contract
    [secret] = [one["secret"] for one in pod["volumes"] if one["name"] == "anchor-secrets"]
    assert secret == {"secretName": "anchor", "defaultMode": 0o400}


def test_only_the_migration_has_the_owners_login() -> None:
    found = kinds(render(LEAST))
    assert "sequencer-owner" not in str(found["StatefulSet"])
    (job,) = found["Job"]
    assert "sequencer-owner" in str(job)
    assert environment(job["spec"]["template"]["spec"]) == {
        "DATA_DIR": "/tmp/sequencer",
        "DATABASE_ADMIN_URL_FILE": "/secrets/database-owner-url",
    }
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"


def test_the_admin_listener_stays_on_loopback_unless_it_is_exposed() -> None:
    assert environment(stateful(render(LEAST)))["ADMIN_BIND"] == "127.0.0.1:8082"
    watched = render(SETS["three nodes, watched"])
    assert environment(stateful(watched))["ADMIN_BIND"] == "0.0.0.0:8082"
    (monitor,) = kinds(watched)["ServiceMonitor"]
    (endpoint,) = monitor["spec"]["endpoints"]
    assert (endpoint["path"], endpoint["port"], endpoint["scheme"]) == ("/metrics", "admin", "https")
    found = [one for one in kinds(watched)["Service"] if "sequencer/listener" in one["metadata"]["labels"]]
    assert [port["name"] for port in found[0]["spec"]["ports"]] == ["admin"]


def test_the_alert_rules_of_the_chart_are_those_that_are_tested() -> None:
    (rules,) = kinds(render(SETS["three nodes, watched"]))["PrometheusRule"]
    assert rules["spec"] == yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())


def test_the_authority_of_the_database_is_there_for_server_and_migration() -> None:
    for pod in pods(render(SETS["database elsewhere"])):
        mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
        assert mounts["database-ca"] == "/database-ca"


REFUSED: dict[str, tuple[Values, str]] = {
    "no image": ({"image": {"repository": ""}}, "image.repository"),
    "no version": ({"image": {"digest": ""}}, "image.digest"),
    "whatever is newest": ({"image": {"tag": "latest"}}, "image/tag"),
    "no id": ({"nodeIdPrefix": ""}, "nodeIdPrefix"),
    "an id that is none": ({"nodeIdPrefix": "sequencer-"}, "nodeIdPrefix"),
    "no secret": ({"secrets": {"existingSecret": ""}}, "secrets.existingSecret"),
    "a secret as a value": ({"secrets": {"signingKey": "aa"}}, "signingKey"),
    "a secret among the settings": ({"settings": {"JWT_SECRET": "x"}}, "JWT_SECRET"),
    "the database's address among the settings": ({"settings": {"DATABASE_URL": "x"}}, "DATABASE_URL"),
    "the chain's address among the settings": ({"settings": {"L2_RPC_URL": "x"}}, "L2_RPC_URL"),
    "the chain's key beside the server's": (
        {"anchor": {"existingSecret": "sequencer", "chainId": 1, "contract": "0x" + "ab" * 20}},
        "anchor.existingSecret",
    ),
    "no chain": ({"anchor": {"existingSecret": "anchor"}}, "anchor.chainId"),
    "no way to the chain": (
        {
            "anchor": {"existingSecret": "anchor", "chainId": 1, "contract": "0x" + "ab" * 20},
            "networkPolicy": {"outside": {"enabled": False}},
        },
        "networkPolicy.outside.enabled",
    ),
    "no owner": ({"migrations": {"existingSecret": ""}}, "migrations.existingSecret"),
    "the owner's login for all": ({"migrations": {"existingSecret": "sequencer"}}, "another Secret"),
    "no certificate": ({"tls": {"secretName": ""}}, "tls.secretName"),
    "clear text": ({"tls": {"mode": "proxy"}}, "tls.acceptClearTextInCluster"),
    "everybody an operator": ({"admin": {"expose": True}}, "admin.allowlist"),
    "everybody allowed": ({"admin": {"expose": True, "allowlist": "0.0.0.0/0"}}, "admin/allowlist"),
    "everybody a proxy": ({"trustedProxies": "10.0.0.0/8,::/0"}, "trustedProxies"),
    "the database anywhere": ({"database": {"cidrs": ["0.0.0.0/0"]}}, "database/cidrs"),
    "a monitor without a door": ({"monitoring": {"serviceMonitor": {"enabled": True}}}, "admin.expose"),
    "an ingress in clear text": (
        {"ingress": {"enabled": True, "host": "a.example"}},
        "ingress.tlsSecretName",
    ),
    "more nodes than digits": ({"replicas": 11}, "replicas"),
    "no memory limit": ({"resources": {"limits": {"memory": None}}}, "memory"),
    "a misspelt value": ({"replicaCount": 3}, "replicaCount"),
}


@pytest.mark.parametrize("how", REFUSED)
def test_what_is_insecure_or_missing_is_refused_with_the_value_to_set(how: str) -> None:
    change, named = REFUSED[how]
    with pytest.raises(Exception, match=named.replace(".", r"\.")):
        render(merged(LEAST, change))
