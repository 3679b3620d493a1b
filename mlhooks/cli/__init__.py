"""The command line: `mlhooks COMMAND`. Errors become messages and exit codes here, and nowhere else."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import traceback
from collections.abc import Iterator, Sequence

import click

from mlhooks.cli.group import VARIABLE, build_cli
from mlhooks.errors import MlhooksError
from mlhooks.stop_signals import INTERRUPTED
from mlhooks.streams import GONE, StreamsHandler, escape_what_cannot_be_encoded, release_streams

__all__ = ["main"]


def main(args: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 bad usage or configuration, 130 interrupted."""
    arguments = list(sys.argv[1:] if args is None else args)
    debug = _wants_debug(arguments)
    escape_what_cannot_be_encoded()
    if VARIABLE in os.environ:
        from mlhooks.cli import shells  # noqa: F401  (its import tells click of it)
    with _log(logging.DEBUG if debug else logging.INFO):
        try:
            code = build_cli(arguments).main(args, prog_name="mlhooks", standalone_mode=False)
        except BrokenPipeError:
            code = 1
        except (click.Abort, KeyboardInterrupt):
            _tell("Interrupted.")
            code = INTERRUPTED
        except SystemExit:  # A plugin's command ends the program.
            raise
        except BaseException as error:
            code = _report(error, debug)
    release_streams()
    return code or 0


def _tell(text: str) -> None:
    with contextlib.suppress(*GONE):
        click.echo(text, err=True)


def _report(error: BaseException, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    if isinstance(error, click.ClickException):
        error.show()
        return error.exit_code
    if isinstance(error, MlhooksError):
        from mlhooks.describing import notes_of, text_of

        text, code = "\n".join([text_of(error), *notes_of(error)]), error.exit_code
    else:
        from mlhooks.cli.unforeseen import explained

        text, code = explained(error, shown=debug), 1
    _tell(f"Error: {text}")
    return code


def _wants_debug(arguments: list[str]) -> bool:
    # Asked before click parses anything, because parsing may fail, too.
    own = arguments[: arguments.index("--env-args")] if "--env-args" in arguments else arguments
    return "--debug" in own or os.environ.get("MLHOOKS_DEBUG", "0") not in {"", "0"}


@contextlib.contextmanager
def _log(level: int) -> Iterator[None]:
    logger = logging.getLogger("mlhooks")
    handler = StreamsHandler()
    handler.setFormatter(_Formatter())
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text if record.levelno == logging.INFO else f"{record.levelname.capitalize()}: {text}"
