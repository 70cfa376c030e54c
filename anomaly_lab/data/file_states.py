"""What tells that a file is still the one that was read: then it is not read again."""

import time
from pathlib import Path

CLOCK_STEP = 2_000_000_000  # nanoseconds; no file system's times are coarser


def state_of(path: Path) -> tuple[int, ...]:
    """Return numbers that are others once the file is another, its size or a time is another.

    Of a file that was written just now they are others each time, as its times may be too coarse to tell.

    Raises:
        OSError: it cannot be looked at.
    """
    found = path.stat()
    now = time.time_ns()
    young = now - max(found.st_mtime_ns, found.st_ctime_ns) <= CLOCK_STEP
    times = (found.st_mtime_ns, found.st_ctime_ns, now if young else 0)
    return found.st_dev, found.st_ino, found.st_size, *times
