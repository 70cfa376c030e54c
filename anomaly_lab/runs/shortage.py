"""What the machine lacks, in one line: memory, room on a disk, shared memory, a deterministic kernel."""

import errno
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from anomaly_lab.errors import RunError, UserError

# torch tells them by their texts alone; a worker's error holds the text of what happened in the worker.
MEMORY = re.compile(
    r"allocate memory|out of memory|not enough memory|bad_alloc|CU\w+_STATUS_ALLOC_FAILED|signal: Killed"
)
SHARED = re.compile(r"shared memory|</torch_|/dev/shm|[Bb]us error")
# The second is what torch says of cuBLAS, whose name follows.
DETERMINISTIC = re.compile(
    r"(\S+) does not have a deterministic implementation|is not deterministic because it uses (\w+)"
)
NO_ROOM = {errno.ENOSPC, errno.EDQUOT}


@contextmanager
def one_line() -> Iterator[None]:
    """Raise a RunError with the way out for what the body raises because the machine lacks something."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if line := shortage(error):
            raise RunError(line) from error
        raise


def shortage(error: BaseException) -> str:
    """Return what an error says that the machine lacks and the way out, or nothing."""
    text = str(error)
    if SHARED.search(text) or (isinstance(error, OSError) and not error.filename and _of_processes(error)):
        ways_out = "give data.workers=0, or more shared memory (docker run --shm-size=8g)"
        return f"data.workers: the loader's workers have too little shared memory in /dev/shm; {ways_out}"
    if is_of_memory(error):
        ways_out = "give a smaller data.batch_size or data.image_size, or fewer data.workers"
        return f"too little memory ({_first_line(error)}); {ways_out}"
    if found := DETERMINISTIC.search(text):
        way_out = "give trainer.deterministic=warn, with which two runs may differ in their last digits"
        operation = (found[1] or found[2]).strip("`'\"")
        return f"trainer.deterministic: strict, but {operation} has no deterministic kernel here; {way_out}"
    if _number(error) in NO_ROOM:
        place = getattr(error, "filename", None) or "a disk"
        return f"{place}: has no room left; make room, and give the same command again"
    return ""


def is_of_memory(error: BaseException) -> bool:
    """Say whether an error tells that memory does not suffice."""
    return isinstance(error, MemoryError) or bool(MEMORY.search(str(error))) or _number(error) == errno.ENOMEM


def _number(error: BaseException) -> int | None:
    return error.errno if isinstance(error, OSError) else None


def _of_processes(error: BaseException) -> bool:
    """Say whether it comes from what processes share, which has no file's name."""
    return any("multiprocessing" in frame.filename for frame in traceback.extract_tb(error.__traceback__))


def _first_line(error: BaseException) -> str:
    words = re.sub(r"^.*?DefaultCPUAllocator: ", "", next(iter(str(error).splitlines()), ""))
    return words[:120] or type(error).__name__
