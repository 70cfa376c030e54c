"""Where what is logged goes on its way to the screen."""

import logging
import sys
from typing import TextIO, final


@final
class Console(logging.StreamHandler[TextIO]):
    """Writes to a stream until whoever reads it has enough; the work goes on, unread."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Say what went wrong with a record, as logging does, unless the stream was closed."""
        if not isinstance(sys.exc_info()[1], BrokenPipeError):
            super().handleError(record)
