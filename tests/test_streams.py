from __future__ import annotations

import io
import logging
import sys

import pytest

from mlhooks.streams import StreamsHandler, release_streams


def say(text: str, level: int = logging.INFO) -> None:
    StreamsHandler().handle(logging.LogRecord("mlhooks", level, __file__, 1, text, None, None))


@pytest.mark.parametrize(
    ("level", "streams"),
    [
        (logging.DEBUG, ("", "said\n")),
        (logging.INFO, ("said\n", "")),
        (logging.WARNING, ("", "said\n")),
        (logging.ERROR, ("", "said\n")),
    ],
)
def test_only_what_reports_goes_to_standard_output(
    capsys: pytest.CaptureFixture[str], level: int, streams: tuple[str, str]
) -> None:
    say("said", level)
    assert capsys.readouterr() == streams


def test_what_the_stream_cannot_encode_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", newline="\n")
    monkeypatch.setattr(sys, "stdout", stream)
    say("Läufer")
    assert stream.buffer.getvalue() == b"L\\xe4ufer\n"


def test_reader_that_is_gone_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(io.StringIO):
        tried = 0

        def write(self, text: str) -> int:
            self.tried += 1
            raise BrokenPipeError

    stream = Closed()
    monkeypatch.setattr(sys, "stdout", stream)
    say("said")
    assert stream.tried == 1


@pytest.mark.parametrize("closed", [True, False], ids=["closed", "none at all"])
def test_stream_that_is_closed_or_missing_ends_nothing(monkeypatch: pytest.MonkeyPatch, closed: bool) -> None:
    for name in ("stdout", "stderr"):
        stream = io.StringIO()
        stream.close()
        monkeypatch.setattr(sys, name, stream if closed else None)
    say("said")
    say("warned", logging.WARNING)
    release_streams()


def test_warning_without_standard_error_is_not_among_the_results(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    say("warned", logging.WARNING)
    assert capsys.readouterr().out == ""
