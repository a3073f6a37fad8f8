"""Checks of the server that runs on DATA_DIR, as a stranger on this machine sees it: without a credential."""

from __future__ import annotations

from supervisor.doctor.checks import Checklist, Verdict, failed, passed
from transport.client.sequencer import SequencerClient

SERVER: Checklist[SequencerClient] = Checklist()
ADMIN_PATHS = ("/metrics", "/health/detailed", "/api/v1/admin/actors")


@SERVER.check("Deployment", "the server answers its health check")
async def health(at: SequencerClient) -> Verdict:
    answer = await at.look("/health")
    if answer.status != 200:
        return failed(f"/health answers {answer.status}", "the log says why; sequencer actors top")
    return passed("/health answers 200")


@SERVER.check("Deployment", "the server is ready")
async def ready(at: SequencerClient) -> Verdict:
    answer = await at.look("/ready")
    if answer.status != 200:
        return failed(f"/ready answers {answer.status}", "sequencer status says what it waits for")
    return passed("/ready answers 200")


@SERVER.check("Deployment", "nobody administers it through the public listener")
async def admin_paths(at: SequencerClient) -> Verdict:
    for path in ADMIN_PATHS:
        answer = await at.look(path)
        if answer.status != 404:
            return failed(
                f"{path} answers {answer.status} on the public listener", "ADMIN_BIND, and the proxy"
            )
    return passed(f"{', '.join(ADMIN_PATHS)} are 404 there")


@SERVER.check("Deployment", "nobody reads without a credential")
async def anonymous(at: SequencerClient) -> Verdict:
    answer = await at.look("/api/v1/ves/commitments")
    if answer.status not in (401, 403):
        return failed(f"/api/v1/ves/commitments answers {answer.status} to nobody", "is that our server?")
    return passed("401 without a credential")
