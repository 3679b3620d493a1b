"""The results that a run with `--force` replaces: put aside at its start, and gone when it has something to show."""

from __future__ import annotations

import shutil
from pathlib import Path


class ReplacedResults:
    """The earlier contents of a run's folder.

    Args:
        path: the folder.

    Attributes:
        aside: where they are meanwhile, beside it.
        waits: whether they are there, to be dropped or brought back.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.aside = path, path.with_name(f".{path.name}.replaced")
        self.waits = False

    def put_aside(self) -> None:
        """Move them; what a run left that was killed before it had anything to show is removed instead."""
        if self.aside.exists():
            shutil.rmtree(self.path, ignore_errors=True)
        elif self.path.exists():
            self.path.rename(self.aside)
        self.waits = self.aside.exists()

    def drop(self) -> None:
        """Remove them."""
        if self.waits:
            shutil.rmtree(self.aside)
            self.waits = False

    def bring_back(self) -> bool:
        """Put them back in place of what is there now, of which only logs are kept; whether there was anything."""
        if not self.waits:
            return False
        for log in self.path.glob("run_logs/*.log"):
            (self.aside / "run_logs").mkdir(exist_ok=True)
            shutil.copy2(log, self.aside / "run_logs")
        shutil.rmtree(self.path, ignore_errors=True)
        self.aside.rename(self.path)
        self.waits = False
        return True
