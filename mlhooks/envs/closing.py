"""Closing environments. A failure does no harm, because what a run has learned is saved before."""

from __future__ import annotations

import logging
from typing import Protocol

from mlhooks.describing import described

logger = logging.getLogger("mlhooks")


class Closable(Protocol):
    """An environment, or a manager of several."""

    def close(self) -> None:
        """Release what it holds."""


def close(opened: Closable, name: str) -> bool:
    """Close an environment, and warn where it raises something, which changes neither how the run ends nor why.

    Args:
        opened: what is to be closed.
        name: its name in the warning.

    Returns:
        Whether it was closed.

    Raises:
        KeyboardInterrupt: somebody does not want to wait for it.
    """
    try:
        opened.close()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        logger.warning("%s could not be closed: %s", name, described(error))
        return False
    return True
