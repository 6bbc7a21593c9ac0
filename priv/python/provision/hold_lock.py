"""Holds a lock on a file until stdin closes, which happens however the owner of this process ends.

The kernel frees the lock with the process, so no lock is ever left behind. Prints `busy PID` while another
process has it, `held` once it is ours, `unsupported REASON` on a file system that knows no locks.
"""

import errno
import fcntl
import os
import select
import sys


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(path: str, owner: str) -> None:
    """Take the lock, say so, and wait for the end of stdin."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    waited = False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                _say(f"unsupported {error.strerror}")
                return
        if not waited:
            waited = True
            _say("busy " + (os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "?"))
        # Nothing is ever written to stdin, so if it is readable, it was closed.
        if select.select([0], [], [], 0.1)[0]:
            return
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, owner.encode("ascii"), 0)
    _say("held")
    select.select([0], [], [])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
