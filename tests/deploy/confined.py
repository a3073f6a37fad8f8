"""``python confined.py ALLOWED_CALLS_FILE COMMAND …``: the command under the unit's kernel rules.

Only the named system calls (others fail with EPERM), no memory that is writable and executable, no address
families but the internet's and UNIX. Uses nothing of ours, so that it can run inside a cell.
"""

import ctypes
import os
import sys

_PR_SET_NO_NEW_PRIVS, _PR_SET_MDWE, _REFUSE_EXEC_GAIN = 38, 65, 1
_ALLOW, _EPERM = 0x7FFF0000, 0x00050001
_SCMP_CMP_EQ = 4
_AF = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10}


class _Compare(ctypes.Structure):
    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    )


def confine(calls: list[str], families: list[str]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    seccomp = ctypes.CDLL("libseccomp.so.2")
    seccomp.seccomp_init.restype = ctypes.c_void_p
    seccomp.seccomp_rule_add_array.argtypes = (
        *(ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint),
        ctypes.POINTER(_Compare),
    )
    seccomp.seccomp_load.argtypes = (ctypes.c_void_p,)
    rules = seccomp.seccomp_init(_EPERM)
    for call in calls:
        number = seccomp.seccomp_syscall_resolve_name(call.encode())
        if number < 0:
            continue  # of another architecture
        if call == "socket":
            for family in families:
                only = _Compare(0, _SCMP_CMP_EQ, _AF[family], 0)
                seccomp.seccomp_rule_add_array(rules, _ALLOW, number, 1, ctypes.byref(only))
        else:
            seccomp.seccomp_rule_add_array(rules, _ALLOW, number, 0, None)
    for option, value in ((_PR_SET_NO_NEW_PRIVS, 1), (_PR_SET_MDWE, _REFUSE_EXEC_GAIN)):
        if libc.prctl(option, value, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), f"prctl {option}")
    if seccomp.seccomp_load(rules) != 0:
        raise OSError("seccomp_load")


if __name__ == "__main__":
    with open(sys.argv[1]) as file:
        lines = file.read().splitlines()
    confine(lines[0].split(), lines[1].split())
    os.execv(sys.argv[2], sys.argv[2:])
