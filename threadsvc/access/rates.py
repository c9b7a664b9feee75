"""How many requests each client has left: one small file for all processes of a machine that have one data directory.

Each client has a bucket of `number` requests that fills up evenly in `seconds`. All that is kept of it is when it will
be full, which is now or earlier for whom nothing is kept. A process that is killed leaves no lock, and what a crash
leaves in the file is a time that can be, or is not believed.
"""

import fcntl
import hashlib
import os
import struct
import threading
import time
from pathlib import Path

# A client and the time, in nanoseconds since the machine started, at which its bucket is full.
SLOT = struct.Struct("<16sQ")
# A client's slot is one of those of its set. Where they are all taken, the one that is full first is given away.
SLOTS_IN_SET = 8
SETS = 8192
SET_BYTES = SLOTS_IN_SET * SLOT.size


class RateTable:
    def __init__(self, path: Path) -> None:
        self._threads = threading.Lock()  # the file's lock is one of processes
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.posix_fallocate(self._file, 0, SETS * SET_BYTES)  # so that a full disk is told here, and not later

    def take(self, client: str, number: int, seconds: int) -> float:
        """Takes a request out of the client's bucket: 0; or, where it is empty, the seconds until there is one."""
        digest = hashlib.blake2b(client.encode("utf-8", "surrogateescape"), digest_size=16).digest()
        at = int.from_bytes(digest[:8], "little") % SETS * SET_BYTES
        period = seconds * 10**9
        with self._threads:
            fcntl.lockf(self._file, fcntl.LOCK_EX)
            try:
                now = time.monotonic_ns()
                slots = list(SLOT.iter_unpack(os.pread(self._file, SET_BYTES, at).ljust(SET_BYTES, b"\0")))
                # None is full later than that, but for what a crash, a restart or a longer period before left.
                full_at = [full if full <= now + period else 0 for _, full in slots]
                mine = next((i for i, (owner, _) in enumerate(slots) if owner == digest), None)
                slot = full_at.index(min(full_at)) if mine is None else mine
                full = max(now, full_at[slot] if mine is not None else 0) + period // number
                if full > now + period:
                    return (full - now - period) / 10**9
                os.pwrite(self._file, SLOT.pack(digest, full), at + slot * SLOT.size)
                return 0
            finally:
                fcntl.lockf(self._file, fcntl.LOCK_UN)
