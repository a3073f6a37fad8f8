"""What a container engine does to a process, done with the kernel's own tools: a root of its own that cannot
be written to, a process tree of its own, another user, no capabilities. For tests of what the image holds, on
machines without an engine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

USER = 10001
_MADE = """
set -eu
mount --make-rprivate /
mount -t tmpfs -o mode=0755 cell "$ROOT"
for name in usr bin sbin lib lib32 lib64 libx32 dev {python}; do
    if [ -L "/$name" ]; then cp -P "/$name" "$ROOT/$name"
    elif [ -d "/$name" ] && [ ! -e "$ROOT/$name" ]; then
        mkdir -p "$ROOT/$name"
        mount --rbind "/$name" "$ROOT/$name"
        [ "$name" = dev ] || mount -o remount,bind,ro "$ROOT/$name"
    fi
done
mkdir "$ROOT/proc" "$ROOT/tmp" "$ROOT/data" "$ROOT/etc" "$ROOT/opt"
mount -t proc -o subset=pid proc "$ROOT/proc"
mkdir "$ROOT/opt/sequencer" "$ROOT/opt/src"
mount --bind "$IMAGE" "$ROOT/opt/sequencer"
mount --bind "$ETC" "$ROOT/etc"
mount --bind "$DATA" "$ROOT/data"
[ "$1" = run ] || mount --bind "$SOURCE" "$ROOT/opt/src"
if [ "$1" = run ]; then
    mount -o remount,bind,ro "$ROOT/opt/sequencer"
    mount -o remount,bind,ro "$ROOT/etc"
    mount -t tmpfs -o mode=1777,noexec,nosuid,nodev tmp "$ROOT/tmp"
    mount -o remount,ro "$ROOT"
else
    chmod 1777 "$ROOT/tmp"
fi
shift
"""
_OF_A_BASE = (
    *(
        "passwd",
        "group",
        "login.defs",
        "default",
        "ssl",
        "hosts",
        "resolv.conf",
        "nsswitch.conf",
        "ld.so.cache",
    ),
    *("ld.so.conf", "ld.so.conf.d", "pip.conf", "alternatives", "pam.d"),
)
"""What of /etc an image has; the accounts are its own to add to."""
_LEAST = (
    f"setpriv --reuid={USER} --regid={USER} --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all"
)


def require_cell() -> None:
    """Skips, saying why, where the kernel or our rights do not allow it."""
    if os.geteuid() != 0:
        pytest.skip("only root may make a root file system for another user")
    for tool in ("unshare", "setpriv", "chroot", "mount"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed (Debian: util-linux, coreutils)")
    tried = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "mount", "-t", "tmpfs", "x", "/mnt"],
        capture_output=True,
        text=True,
    )
    if tried.returncode != 0:
        pytest.skip(f"this machine does not let us mount: {tried.stderr.strip()}")


class Cell:
    """``build`` runs commands of the image's first stage; ``start`` runs one in the finished image."""

    def __init__(self, folder: Path) -> None:
        self.source, self.image, self.data = folder / "source", folder / "image", folder / "data"
        self._root, self._etc = folder / "root", folder / "etc"
        for path in (self.source, self.image, self.data, self._root, self._etc):
            path.mkdir(mode=0o755)
        for name in _OF_A_BASE:
            place = Path("/etc") / name
            if place.is_dir():
                shutil.copytree(place, self._etc / name, symlinks=True)
            elif place.exists():
                shutil.copy(place, self._etc / name)
        for name in ("shadow", "gshadow"):
            (self._etc / name).touch(0o600)

    def build(self, command: str) -> None:
        kept = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_"))}
        done = subprocess.run(
            self._entering("build", 'exec chroot "$ROOT" /bin/sh -c "cd /opt/src; $COMMAND"'),
            env=self._environment() | kept | {"COMMAND": command},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self, words: list[str], environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
        given = " ".join(f'"{name}={value}"' for name, value in environment.items())
        script = f'exec chroot "$ROOT" /usr/bin/env -i {given} {_LEAST} {" ".join(words)}'
        with log.open("ab") as file:
            return subprocess.Popen(
                self._entering("run", script),
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    def run(self, words: list[str], environment: dict[str, str], log: Path) -> int:
        return self.start(words, environment, log).wait(60)

    def _entering(self, what: str, then: str) -> list[str]:
        python = sys.base_prefix.strip("/")
        script = _MADE.format(python=python) + then
        return [
            "unshare",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "/bin/sh",
            "-c",
            script,
            "cell",
            what,
        ]

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": f"{sys.base_prefix}/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "ROOT": str(self._root),
            "IMAGE": str(self.image),
            "SOURCE": str(self.source),
            "DATA": str(self.data),
            "ETC": str(self._etc),
        }
