"""The fields of requests (RFC 9113, 8), as they come: compressed (RFC 7541), and not always well-formed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from hpack import Decoder, HPACKError, OversizedHeaderListError

from mlhooks.unity.http2_frames import COMPRESSION_ERROR, ENHANCE_YOUR_CALM, PROTOCOL_ERROR, Http2Error

MOST_FIELDS = 2**14
"""Bytes of the fields of a request, and of the block that they are compressed to (6.5.2)."""

Fields = Iterable[tuple[bytes, bytes]]
_NAME = re.compile(rb":?[!-9;-@\[-~]+")  # These are visible characters without upper case (8.2.1).
_MISFIT = re.compile(rb"[\0\r\n]|\A[ \t]|[ \t]\Z")
_OF_CONNECTIONS = {b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"}  # (8.2.2)
_PSEUDO = {b":method", b":scheme", b":authority", b":path"}  # (8.3.1)
_MOST_DIGITS = 18  # A length has no more.


class Request(NamedTuple):
    """The fields of a request.

    Attributes:
        length: of the body, where it is told.
        objection: the fields of the answer that needs no body, or nothing.
    """

    length: int | None
    objection: bytes


class FieldReader:
    """Reads what one client sends; blocks of fields have to come in their order.

    Args:
        objection: to a request, by its fields: the fields of an answer, or nothing.
    """

    def __init__(self, objection: Callable[[dict[bytes, bytes]], bytes]) -> None:
        self._decoder, self._objection = Decoder(max_header_list_size=MOST_FIELDS), objection
        self._last: tuple[bytes, Request] | None = None

    def request(self, block: bytes) -> Request:
        """Read the fields that begin a request.

        Raises:
            Http2Error: they cannot be read, or are malformed.
        """
        if self._last is not None and self._last[0] == block:  # A player's calls are all the same.
            return self._last[1]
        before = self._state()
        fields = self.decode(block)
        request = Request(_checked(fields), self._objection(_of_request(fields)))
        if self._state() == before:
            self._last = block, request
        return request

    def trailers(self, block: bytes) -> None:
        """Read the fields that end a request.

        Raises:
            Http2Error: they cannot be read, or are malformed.
        """
        fields = self.decode(block)
        _checked(fields)
        for name, _ in fields:
            if name.startswith(b":"):
                raise _malformed(f"{_shown(name)} at the end of a request")

    def decode(self, block: bytes) -> list[tuple[bytes, bytes]]:
        """Decompress fields.

        Raises:
            Http2Error: they cannot be read.
        """
        before = self._state()
        try:
            fields = [(bytes(name), bytes(value)) for name, value in self._decoder.decode(block, raw=True)]
        except OversizedHeaderListError:
            raise Http2Error(ENHANCE_YOUR_CALM, f"fields of more than {MOST_FIELDS} bytes") from None
        except HPACKError:
            raise Http2Error(COMPRESSION_ERROR, "fields that cannot be read") from None
        if self._state() != before:
            self._last = None
        return fields

    def _state(self) -> tuple[int, list[tuple[bytes, bytes]]]:
        """Return all that the meaning of the next block depends on."""
        table = self._decoder.header_table
        return table.maxsize, list(table.dynamic_entries)


def _checked(fields: Fields) -> int | None:
    """Check that each field is well-formed by itself (8.2), and return the length that they tell."""
    length: int | None = None
    for name, value in fields:
        if not _NAME.fullmatch(name):
            raise _malformed(f"the name {_shown(name)}")
        if _MISFIT.search(value):
            raise _malformed(f"the value of {_shown(name)}")
        if name in _OF_CONNECTIONS or (name == b"te" and value.lower() != b"trailers"):
            raise _malformed(f"{_shown(name)}, which is for HTTP/1 only")
        if name == b"content-length":
            if not value.isdigit() or len(value) > _MOST_DIGITS or length not in (None, int(value)):
                raise _malformed("a length that is none")
            length = int(value)
    return length


def _of_request(fields: Fields) -> dict[bytes, bytes]:
    """Check that the fields of a request are complete and in order (8.3), and return them by name."""
    named: dict[bytes, bytes] = {}
    regular = False
    for name, value in fields:
        if name.startswith(b":"):
            if regular or name in named or name not in _PSEUDO:
                raise _malformed(f"{_shown(name)}, which is unknown, twice there, or behind other fields")
        else:
            regular = True
        named[name] = value
    pseudo = _PSEUDO & named.keys()
    if named.get(b":method") == b"CONNECT":
        complete = pseudo == {b":method", b":authority"}
    else:
        complete = pseudo | {b":authority"} == _PSEUDO and named[b":path"] != b""
    host = named.get(b"host", named.get(b":authority"))
    if not complete or host is None or host != named.get(b":authority", host):
        raise _malformed("a request that does not say what is wanted from whom")
    return named


def _malformed(what: str) -> Http2Error:
    return Http2Error(PROTOCOL_ERROR, f"malformed fields: {what}")


def _shown(name: bytes) -> str:
    return ascii(name[:40].decode("latin-1"))
