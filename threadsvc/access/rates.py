"""The token buckets of the rate limit, in a small file.

All processes on a machine that share a data directory share the file. Each client has a bucket of `number` requests,
which refills evenly in `seconds`. The file stores the time at which a bucket will be full. A missing bucket counts as
full. If a process is killed, the kernel releases its lock.

The stored times count from the start of the machine. After the machine crashes and restarts, they can be too far in the
future. Such times are ignored.
"""

import fcntl
import hashlib
import os
import struct
import threading
import time
from pathlib import Path

# A slot contains a client's digest, and the time at which its bucket is full, in nanoseconds since the machine started.
SLOT = struct.Struct("<16sQ")
# The digest selects a set of slots, and the client uses one slot in the set. If all slots of the set are used, the new
# client replaces the client whose bucket will be full first.
SLOTS_IN_SET = 8
SETS = 8192
SET_BYTES = SLOTS_IN_SET * SLOT.size


class RateTable:
    def __init__(self, path: Path) -> None:
        self._threads = threading.Lock()  # needed too, because the file lock only excludes other processes
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.posix_fallocate(self._file, 0, SETS * SET_BYTES)  # now, so that a full disk raises here and not later

    def take(self, client: str, number: int, seconds: int) -> float:
        """Take one request from the client's bucket.

        Returns 0, or the seconds until the next request if the bucket is empty.
        """
        digest = hashlib.blake2b(client.encode("utf-8", "surrogateescape"), digest_size=16).digest()
        at = int.from_bytes(digest[:8], "little") % SETS * SET_BYTES
        period = seconds * 10**9
        with self._threads:
            fcntl.lockf(self._file, fcntl.LOCK_EX)
            try:
                now = time.monotonic_ns()
                slots = list(SLOT.iter_unpack(os.pread(self._file, SET_BYTES, at).ljust(SET_BYTES, b"\0")))
                # No bucket takes longer than one period to refill. A later time can only be from before a crash or a
                # restart, or from a setting with a longer period.
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
