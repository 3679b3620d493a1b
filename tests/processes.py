"""What tests ask the system about processes."""

import psutil


def is_running(pid: int) -> bool:
    """Return whether a process has not ended; one that its parent has not noticed yet has."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def mentioning(text: str) -> list[str]:
    """Return the command lines of running processes that hold a text."""
    lines = (" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"]))
    return [line for line in lines if text in line]
