"""The lines of the guide's checklists that no program can check: where they are written."""

from __future__ import annotations

from supervisor.doctor.checks import Finding, Section, Verdict

_LINES: tuple[tuple[Section, str, str], ...] = (
    ("Development", "dependencies are scanned", "CONTRIBUTING.md, security of a change"),
    ("Development", "static analysis", "make check, CONTRIBUTING.md"),
    ("Development", "secrets are searched for", "make test, CONTRIBUTING.md"),
    ("Development", "code is reviewed for security", "CONTRIBUTING.md, security of a change"),
    ("Deployment", "network policies are in force", "deploy/kubernetes/, docs/operations.md"),
    ("Operations", "logs are collected and watched", "docs/operations.md, duties"),
    ("Operations", "alerts reach somebody", "docs/alerts.md, deploy/prometheus/alerts.yml"),
    ("Operations", "backups are encrypted and tried", "docs/backup.md"),
    ("Operations", "the incident response plan is tried", "docs/alerts.md, incident response"),
    ("Compliance", "data is where it has to be", "docs/operations.md, where tenants are served"),
    ("Compliance", "disks are encrypted", "docs/database.md, disks"),
    ("Compliance", "access controls are documented", "SECURITY.md, and yours in docs/database.md, logins"),
    ("Compliance", "people are trained", "docs/operations.md, duties"),
)


def yours() -> list[Finding]:
    return [
        Finding(section, item, Verdict("yours", "people have to see to it", where))
        for section, item, where in _LINES
    ]
