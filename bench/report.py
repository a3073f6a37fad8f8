"""Results as a person reads them: the table, the machine it was made on, and the limits with our ratio to each.

``python -m bench.report FILE.json`` prints them once more; ``… --into docs/performance.md`` writes them, and the
picture beside the file, between that page's two marks.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterable
from pathlib import Path

from bench.goals import ELSEWHERE, Judged, judged
from bench.machine import Machine, machine
from bench.results import Limits, Results, Row, read

BUSY = 0.1
"""Share of the processors that others had, from which on a table says that wall times mean little."""


BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
PICTURE = "throughput by shape under its limits, latency at half load, processor time by process"


def told(results: Results) -> str:
    """Everything, for a terminal."""
    return "\n".join([*heading(results), "", *table(results.rows), "", *limits(results), "", *goals(results)])


def heading(results: Results) -> list[str]:
    database = results.database
    durable = ", ".join(f"{name}={value}" for name, value in database.items() if name != "server_version")
    return [
        f"{results.made_at}, revision {results.revision}",
        describe(results.machine),
        f"PostgreSQL {database['server_version']} on {results.machine.filesystem}: {durable}",
        busy(results),
    ]


def describe(machine: Machine) -> str:
    """One line: what a number without it is not worth."""
    packages = ", ".join(f"{name} {version}" for name, version in machine.packages.items())
    return (
        f"{machine.cpu}, {machine.cores} cores, {machine.memory_mib} MiB, {machine.kernel},"
        f" Python {machine.python}, {packages}"
    )


def this_machine() -> str:
    """The one line, for benchmarks that print no more of it."""
    return describe(machine(Path.cwd()))


def busy(results: Results) -> str:
    """Whether the machine was ours."""
    middle = _elsewhere(results)
    what = "a BUSY machine: compare processor times, not rates" if middle > BUSY else "a quiet machine"
    return f"{what} (other programs had {middle:.0%} of the processors in the median round)"


def _elsewhere(results: Results) -> float:
    shares = [one.elsewhere for row in results.rows for one in row.rounds]
    return statistics.median(shares) if shares else 0.0


def table(rows: Iterable[Row]) -> list[str]:
    """Medians over the rounds; of the rates also lowest to highest."""
    lines = [
        f"{'':<36}{'loop':>7}{'a second: median (min-max)':>36}{'p50 / p99 / p99.9 ms':>28}"
        "      processor us for each, by process"
    ]
    for row in (row for row in rows if row.rounds):
        name, loop, rate, latencies, cpu = _cells(row)
        lines.append(f"{name:<36}{loop:>7}{rate:>36}{latencies:>28}      {cpu}")
    return lines


def _cells(row: Row) -> tuple[str, str, str, str, str]:
    low, high = row.spread(lambda one: one.per_s)
    of_rounds = (lambda one: one.p50_ms, lambda one: one.p99_ms, lambda one: one.p999_ms)
    return (
        row.name,
        row.mode,
        f"{row.median(lambda one: one.per_s):,.0f} {row.unit} ({low:,.0f}-{high:,.0f})",
        " / ".join(f"{row.median(of):,.1f}" for of in of_rounds),
        ", ".join(f"{part} {value:,.{0 if value >= 10 else 1}f}" for part, value in row.cpu().items()),
    )


def page(results: Results, picture: str) -> str:
    """The same for a Markdown page that shows ``picture``."""
    lines = [
        f"**{results.made_at}**, revision `{results.revision}`, {busy(results)}. {describe(results.machine)};"
        f" PostgreSQL {results.database['server_version']} on {results.machine.filesystem}."
        f" Medians of {max(len(row.rounds) for row in results.rows)} rounds of {results.seconds:g} s.",
        "",
        "| row | loop | a second: median (min-max) | p50 / p99 / p99.9 ms | processor µs for each, by process |",
        "|---|---|---|---|---|",
    ]
    for row in (row for row in results.rows if row.rounds):
        lines.append("| " + " | ".join(_cells(row)) + " |")
    lines += ["", *(f"- {line.strip()}" for line in limits(results)[1:]), *_goals_page(results)]
    lines += ["", f"![{PICTURE}]({picture})"]
    return "\n".join(lines)


def into(page_path: Path, results: Results, picture: str) -> None:
    """Replaces what is between the marks; SystemExit if they are not there."""
    before, begin, rest = page_path.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{page_path} has no place for results: the lines {BEGIN} and {END}")
    page_path.write_text(f"{before}{BEGIN}\n{page(results, picture)}\n{END}{after}")


def goals(results: Results) -> list[str]:
    """Each goal that this run has the rows of: what was wanted, what was measured, whether that is enough."""
    lines = [
        "GOALS on a machine of two cores that does nothing else, median over the rounds [least to most]:"
    ]
    for one in judged(results):
        lines.append(f"  {_verdict(one, results)}: {one.name}: {one.measured}; wanted: {one.goal}")
    return [*lines, *(f"  not of this run: {what}: python -m bench.{program}" for what, program in ELSEWHERE)]


def _verdict(one: Judged, results: Results) -> str:
    """What a busy machine did not reach it may reach another day."""
    return one.verdict if one.reached or _elsewhere(results) <= BUSY else f"{one.verdict}, but BUSY"


def _goals_page(results: Results) -> list[str]:
    """The same as a Markdown table; nothing where there are none."""
    rows = [
        f"| {one.name} | {one.goal} | {one.measured} | {_verdict(one, results)} |" for one in judged(results)
    ]
    return ["", "| goal | wanted | median [least to most] | |", "|---|---|---|---|", *rows] if rows else []


def best(rows: Iterable[Row], wanted: Callable[[Row], bool]) -> Row | None:
    """The fastest closed row among those."""
    closed = [row for row in rows if row.rounds and row.mode == "closed" and wanted(row)]
    return max(closed, key=lambda row: row.median(lambda one: one.per_s), default=None)


def limits(results: Results) -> list[str]:
    """Each limit of this machine, and what of it the fastest fitting row reached."""
    known, lines = results.limits, ["limits of this machine, measured between the rounds:"]
    if known.verify_us:
        lines += _signatures(known, results)
    fastest = best(results.rows, lambda row: row.kind == "ingest")
    if known.copy_rows_per_s:
        limit = statistics.median(known.copy_rows_per_s)
        lines.append(f"  COPY, 1000 durable rows a COMMIT: {limit:,.0f} rows/s{_ratio(fastest, limit)}")
        limit = statistics.median(known.copy_rows_per_s_100)
        lines.append(f"  COPY, 100 durable rows a COMMIT: {limit:,.0f} rows/s{_ratio(fastest, limit)}")
    if known.echo_per_s:
        single = best(results.rows, lambda row: row.kind == "ingest" and row.batch == 1)
        limit, cpu = statistics.median(known.echo_per_s), statistics.median(known.echo_cpu_us)
        lines.append(
            f"  Hypercorn's echo of a small POST: {limit:,.0f} requests/s, {cpu:.0f} us each{_ratio(single, limit)}"
        )
    if known.page_touch_us:
        lines.append(
            f"  memory, touched before each run: {statistics.median(known.page_touch_us):.1f} us a page"
            f" ({min(known.page_touch_us):.1f}-{max(known.page_touch_us):.1f})"
        )
    return lines


def _signatures(known: Limits, results: Results) -> list[str]:
    fastest = best(results.rows, lambda row: row.kind == "ingest")
    limit, at_best = known.signatures_per_s(), known.signatures_per_s_at_best()
    middles = [
        statistics.median(each)
        for each in (known.verify_us_median, known.verify_us, known.sign_us_median, known.sign_us)
    ]
    all_cores = statistics.median(known.verify_us_all_cores)
    lines = [
        f"  verify and sign on one core: {limit:,.0f} events/s{_ratio(fastest, limit)};"
        " verify {:.1f} us (least {:.1f}), sign {:.1f} us (least {:.1f})".format(*middles),
        f"  … in its fastest milliseconds: {at_best:,.0f} events/s{_ratio(fastest, at_best)}",
        f"  with all cores busy: verify {all_cores:.1f} us, sign {statistics.median(known.sign_us_all_cores):.1f} us",
    ]
    if fastest is not None:
        share = efficiency(fastest.median(lambda one: one.per_s), all_cores, results.machine.cores)
        lines.append(f"  E = events/s x verify us / (cores x 10^6) = {share:.2f} for {fastest.name}")
    return lines


def efficiency(events_per_s: float, verify_us: float, cores: int) -> float:
    """The share of the whole machine that went into verifying signatures: the figure that survives a drifting clock."""
    return events_per_s * verify_us / (cores * 1e6)


def _ratio(row: Row | None, limit: float) -> str:
    if row is None:
        return ""
    return f", {row.name} is {row.median(lambda one: one.per_s) / limit:.2f} of it"


def main() -> None:
    arguments = argparse.ArgumentParser(prog="bench.report")
    arguments.add_argument("file", type=Path)
    arguments.add_argument(
        "--into", type=Path, help="a Markdown page with two marks; the picture is FILE.svg"
    )
    chosen = arguments.parse_args()
    results = read(chosen.file)
    if chosen.into is None:
        print(told(results))
    else:
        picture = chosen.file.with_suffix(".svg").resolve()
        into(chosen.into, results, str(picture.relative_to(chosen.into.resolve().parent)))


if __name__ == "__main__":
    main()
