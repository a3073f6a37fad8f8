"""The search for a secret in the memory of a process that runs."""

from __future__ import annotations


def memory_holds(pid: int, needles: dict[str, bytes]) -> set[str]:
    """Which of them stand anywhere in the memory of this process."""
    found = set()
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in maps:
            where, rights, *_ = line.split()
            start, end = (int(word, 16) for word in where.split("-"))
            if "r" not in rights or "[v" in line:
                continue
            memory.seek(start)
            try:
                region = memory.read(end - start)
            except OSError:
                continue
            found |= {name for name, needle in needles.items() if needle in region}
    return found


def spelled(secret: bytes) -> dict[str, bytes]:
    return {"raw": secret, "hex": secret.hex().encode(), "HEX": secret.hex().upper().encode()}
