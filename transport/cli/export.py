"""``sequencer export``: a verifiable copy of everything a tenant has, for leaving or for keeping elsewhere.

Over HTTP, with a credential that may read the tenant's events. A run that died is run again with the same
words and goes on; a finished export is not written again but verified.
"""

from __future__ import annotations

import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated
from uuid import UUID

from cyclopts import Parameter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from transport.cli.console import Exit, Json, Server, notice, run, show
from transport.client.errors import ClientError
from transport.client.export import Export, begin, begun, plan_export
from transport.client.export_check import check_export
from transport.client.export_form import MANIFEST, Plan, digest_of
from transport.client.export_report import ExportReport
from transport.client.trust import Pins, default_path

HERE = Server()
FINISHED = "this export is finished: it was verified, and not written again"


def export(
    *,
    tenant: UUID,
    to: Path,
    store: UUID | None = None,
    from_sequence: int | None = None,
    to_sequence: int | None = None,
    with_payloads: Annotated[bool, Parameter(negative="--without-payloads")] = True,
    admin_url: str | None = None,
    as_json: Json = False,
    server: Server = HERE,
) -> int:
    """Write a self-contained, verifiable copy of a tenant into a folder.

    Events with payloads and receipts, commitments with all leaves, validity proofs, the unsigned events and
    their commitments, receipt keys, agents' keys, schemas.
    `sequencer verify export` checks it offline. Killed, it goes on where it was when run again.

    Parameters
    ----------
    tenant
        Whose.
    to
        Empty or new folder, or that of an export that was begun with the same words.
    store
        Only this store's stream.
    from_sequence
        The first number wanted of each stream.
    to_sequence
        The last.
    with_payloads
        Without them signatures and receipts still verify, but not what was said.
    admin_url
        Address of the admin listener: the tenant's policy and audit entries as well.
    """
    if (
        (from_sequence or 1) < 1
        or (to_sequence or 1) < 1
        or (to_sequence or from_sequence or 1) < (from_sequence or 1)
    ):
        notice("--from-sequence and --to-sequence: 1 or more, the first not behind the last")
        return Exit.USAGE

    async def work() -> int:
        try:
            plan = begun(to)
            if plan is not None and (to / MANIFEST).exists():
                report = check_export(to, Pins(server.pins or default_path()).all_keys(), None)
                return tell(to, report, as_json, first=FINISHED)
            async with AsyncExitStack() as stack:
                client = await stack.enter_async_context(server.client())
                await client.receipt_keys()  # pinned, if met for the first time: what is verified later
                admin = None
                if admin_url is not None:
                    admin = await stack.enter_async_context(server.connect(admin_url, server.api_key()))
                wanted = await plan_export(
                    client,
                    tenant.bytes,
                    store_id=store.bytes if store else None,
                    first=from_sequence,
                    through=to_sequence,
                    with_payloads=with_payloads,
                    with_admin=admin is not None,
                )
                if plan is None:
                    begin(to, wanted)
                    plan = wanted
                _same(plan, wanted, to)
                with _bar() as bar:
                    task = bar.add_task("events", total=None)
                    manifest = await Export(to, plan, client, admin).run(
                        lambda done, total: bar.update(task, completed=done, total=total)
                    )
        except OSError as error:
            raise ClientError(f"{error.filename or to}: {error.strerror or error}") from error
        events, legacy, proofs = (
            sum(entry.lines for entry in manifest.files if kind in entry.file)
            for kind in ("/events-", "/legacy-events-", "/validity-proofs.")
        )
        data = {
            "ok": True,
            "events": events,
            "legacy_events": legacy,
            "validity_proofs": proofs,
            "streams": len(plan.streams),
            "files": len(manifest.files),
            "manifest_sha256": digest_of(to / MANIFEST).sha256,
            "not_included": manifest.not_included,
        }
        missing = "".join(f"\nnot included: {what}" for what in manifest.not_included)
        text = (
            f"{events} signed and {legacy} unsigned events of {len(plan.streams)} stores, {proofs} validity "
            f"proofs, {len(manifest.files)} files in {to}{missing}\n"
            f"SHA-256 of {MANIFEST}: {data['manifest_sha256']}\ncheck it: sequencer verify export {to}"
        )
        show(text, data, as_json)
        return Exit.OK

    return run(work, as_json=as_json)


def _same(plan: Plan, wanted: Plan, folder: Path) -> None:
    """An export goes on only as it was begun. How far the streams go was decided then."""
    asked = [(s.store_id, s.first) for s in wanted.streams]
    there = [(s.store_id, s.first) for s in plan.streams]
    if (plan.tenant_id, plan.with_payloads, plan.with_admin) != (
        wanted.tenant_id,
        wanted.with_payloads,
        wanted.with_admin,
    ) or not set(there) <= set(asked):
        raise ClientError(
            f"{folder} holds an export that was begun with other words: use them, or another --to"
        )


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
    )


def tell(folder: Path, report: ExportReport, as_json: bool, *, first: str | None = None) -> int:
    """Wrong beats untrusted beats fine."""
    if not report.ok:
        code, verdict = Exit.FAILED, f"{folder}: NOT valid, {report.problems_found} problems"
    elif not report.trusted:
        code, verdict = Exit.NOT_TRUSTED, f"{folder}: consistent, not trusted"
    else:
        code, verdict = Exit.OK, f"{folder}: valid"
    lines = [*([first] if first else []), *report.problems]
    lines += [f"verified: {what}" for what in report.verified]
    lines += [f"NOT verified: {what}" for what in report.not_verified]
    lines += [f"state root of store {store}: {root}" for store, root in report.state_roots.items()]
    members = {name: getattr(report, name) for name in report.__struct_fields__}
    show("\n".join([*lines, verdict]), {"ok": code == Exit.OK, **members}, as_json)
    return code
