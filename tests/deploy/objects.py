"""What every Kubernetes object of ours has to be, whether written by hand or made by the chart."""

from __future__ import annotations

from typing import Any

from config.exposure import refuse_clear_text
from config.secret_sources import secret_settings
from config.settings import Settings
from tests.deploy.tools import require

Object = dict[str, Any]
OF_OTHERS = {"ServiceMonitor", "PrometheusRule", "ExternalSecret"}
"""Kinds that Kubernetes itself does not know: their shape is their operator's."""
VERSIONS = ("1.28", "1.37")
"""The oldest that we support, and the newest that the validator knows."""


def check_by_schema(found: list[Object]) -> None:
    require("kubernetes_validate")
    import kubernetes_validate

    for one in found:
        if one["kind"] not in OF_OTHERS:
            for version in VERSIONS:
                kubernetes_validate.validate(one, version, strict=True)


def pods(found: list[Object]) -> list[Object]:
    return [one["spec"]["template"]["spec"] for one in found if one["kind"] in ("StatefulSet", "Job")]


def check_least_rights(pod: Object) -> None:
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == 10001
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(pod)
    for container in pod["containers"]:
        may = container["securityContext"]
        assert may["readOnlyRootFilesystem"] is True
        assert may["allowPrivilegeEscalation"] is False
        assert may["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"]["memory"]
        assert container["resources"]["requests"]["cpu"]
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted >= {volume["name"] for volume in pod["volumes"]}
    for volume in pod["volumes"]:
        if "secret" in volume:
            assert volume["secret"]["defaultMode"] == 0o400, volume["name"]


def environment(pod: Object, index: int = 0) -> dict[str, str]:
    """As the kubelet gives it to the pod of this number."""
    (container,) = pod["containers"]
    given = {one["name"]: one["value"] for one in container["env"] if "value" in one}
    return {name: value.replace("$(POD_INDEX)", str(index)) for name, value in given.items()}


def check_settings(given: dict[str, str], pod: Object) -> None:
    """The server would start with them: names exist, secrets are mounted files, nothing is in clear text."""
    secret = {name.upper() for name in secret_settings(Settings)}
    known = {name.upper() for name in Settings.model_fields} | {f"{name}_FILE" for name in secret}
    assert set(given) <= known, set(given) - known
    assert not set(given) & secret, "a secret in a variable"
    places = tuple(mount["mountPath"] + "/" for mount in pod["containers"][0]["volumeMounts"])
    for name, value in given.items():
        if name.endswith("_FILE") or name == "DATA_DIR":
            assert value.startswith(places), f"{name}: nothing is mounted at {value}"
    plain = {name.lower(): value for name, value in given.items() if name.removesuffix("_FILE") not in secret}
    refuse_clear_text(Settings(_env_file=None, **plain))  # type: ignore[arg-type]


def check_probes(pod: Object) -> None:
    (container,) = pod["containers"]
    given = environment(pod)
    scheme = "HTTPS" if "TLS_CERT_FILE" in given else "HTTP"
    for probe, path in (
        ("startupProbe", "/health"),
        ("livenessProbe", "/health"),
        ("readinessProbe", "/ready"),
    ):
        asked = container[probe]["httpGet"]
        assert (asked["path"], asked["port"]) == (path, "public")
        assert asked.get("scheme", "HTTP") == scheme
    assert {"name": "public", "containerPort": int(given.get("PORT", "8080"))} in container["ports"]
    settings = Settings(_env_file=None)
    needed = float(given.get("SHUTDOWN_PAUSE_SECS", settings.shutdown_pause_secs)) + float(
        given.get("GRACEFUL_TIMEOUT_SECS", settings.graceful_timeout_secs)
    )
    assert pod["terminationGracePeriodSeconds"] >= needed + 10


def doors(policy: Object) -> tuple[list[tuple[str, list[int]]], list[tuple[str, list[int]]]]:
    """(who, ports) of those who may come in, and of those who may be spoken to."""
    assert set(policy["spec"]["policyTypes"]) == {"Ingress", "Egress"}
    sides = []
    for rules, side in ((policy["spec"]["ingress"], "from"), (policy["spec"]["egress"], "to")):
        assert all(rule[side] for rule in rules), "an empty list is everybody"
        sides.append([(str(rule[side]), [port["port"] for port in rule["ports"]]) for rule in rules])
    return sides[0], sides[1]
