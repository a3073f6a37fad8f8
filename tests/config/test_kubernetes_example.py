"""The Kubernetes example names settings that exist, and keeps the anchoring key away from the server."""

from __future__ import annotations

import re
from pathlib import Path

from config.exposure import refuse_clear_text
from config.secret_sources import secret_settings
from config.settings import Settings

EXAMPLE = Path(__file__).resolve().parents[2] / "deploy/kubernetes/secrets.yaml"


def variables() -> list[tuple[str, str]]:
    return re.findall(r'\{name: ([A-Z_]+), value: "?([^"}\s]+)"?\}', EXAMPLE.read_text())


def test_the_server_starts_with_it() -> None:
    plain = {name.lower(): value for name, value in variables() if not name.endswith("_FILE")}
    refuse_clear_text(Settings(_env_file=None, **plain))


def test_every_variable_is_a_setting_and_every_secret_is_a_mounted_file() -> None:
    named = variables()
    secret = {name.upper() for name in secret_settings(Settings)}
    settings = {name.upper() for name in Settings.model_fields} | {f"{name}_FILE" for name in secret}
    assert len(named) == 16
    for name, value in named:
        assert name in settings
        assert name not in secret, "a secret in a variable"
        assert value.startswith("/secrets/") == name.endswith("_FILE")


def test_the_servers_pod_cannot_see_the_anchoring_key() -> None:
    documents = EXAMPLE.read_text().split("\n---\n")
    (pod,) = [one for one in documents if "kind: StatefulSet" in one]
    assert "anchor" not in pod
    assert "serviceAccountName: sequencer\n" in pod
