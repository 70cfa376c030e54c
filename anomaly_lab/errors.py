"""What a user can mend: each error is one line that names the file or key and the way out.

Whatever else is raised is a fault of this project, and shows its traceback.
"""

from typing import final


class UserError(Exception):
    """Base of every error that the command line prints as one line, without a traceback, with exit code 1."""


class ConfigError(UserError):
    """A key, value or choice of the config does not fit; raised before any data is read."""


class DataError(UserError):
    """An image, mask or folder cannot be used."""


class RunError(UserError):
    """A run cannot start, go on or be read."""


class BusyError(RunError):
    """Another process works on this run; the same command may be given again later."""


@final
class Terminated(BaseException):
    """SIGTERM: ends the program as Ctrl-C does."""


def mendable(error: BaseException) -> UserError | None:
    """Return the error of a user that this one is or wraps, as Hydra does with what a constructor raises."""
    cause: BaseException | None = error
    while cause and not isinstance(cause, UserError):
        cause = cause.__cause__
    return cause if isinstance(cause, UserError) else None
