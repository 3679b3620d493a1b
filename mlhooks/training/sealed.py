"""Files of weights that vouch for themselves: torch's archive with a digest of all of it, read without unpickling."""

from __future__ import annotations

import hashlib
import io
import os
import pickletools
import re
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch

from mlhooks.training.manifest import open_file

SEAL = b"mlhooks sha256 "
LENGTH = len(SEAL) + 64
"""Bytes of the archive's comment, which is the seal: a digest of all bytes before it, in hexadecimal digits."""
PLAIN = re.compile(
    r"collections OrderedDict|_codecs encode|torch (\w+Storage|uint\d+)|torch.storage UntypedStorage"
    r"|torch._utils _rebuild_(tensor_v[23]|parameter)"
)
"""What makes tensors and plain values; torch allows more, such as `bytearray`, which takes any amount of memory."""


class NotSealed(ValueError):
    """A file that mlhooks did not write, or that is not as it was written."""


def seal(state: Any) -> bytes:
    """Return tensors and plain values as an archive that `torch.load` reads, and that ends with its digest."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(-2, os.SEEK_END)  # The length of the archive's comment is there.
    buffer.write(LENGTH.to_bytes(2, "little"))
    digest = hashlib.sha256(buffer.getbuffer()).hexdigest()
    buffer.write(SEAL + digest.encode())
    return buffer.getvalue()


def load_sealed(path: Path) -> Any:
    """Read what `seal` made; memory and time are bounded by the size of the file.

    Raises:
        OSError: there is no such file, or no regular one.
        NotSealed: any bit of it is not as it was written, or it holds other things than tensors and plain values.
    """
    with open_file(path) as file:
        _check_digest(file)
        try:
            _check_plain(file)
            file.seek(0)
            return torch.load(file, map_location="cpu", weights_only=True)
        except NotSealed:
            raise
        except Exception as error:  # A forged archive can make zipfile, pickletools and torch raise whatever they have.
            raise NotSealed(f"it is no archive of tensors ({type(error).__name__})") from error


def _check_digest(file: BinaryIO) -> None:
    sealed = file.seek(0, os.SEEK_END) - LENGTH
    if sealed == -LENGTH:
        raise NotSealed("it is empty")
    file.seek(max(0, sealed))
    found = file.read()
    if not found.startswith(SEAL) or sealed <= 0:
        raise NotSealed("it does not end with the digest that mlhooks writes, so it is cut, damaged or of another tool")
    digest, left = hashlib.sha256(), sealed
    file.seek(0)
    while left > 0 and (part := file.read(min(left, 2**20))):
        digest.update(part)
        left -= len(part)
    if found != SEAL + digest.hexdigest().encode():
        raise NotSealed("its SHA-256 differs from the one that it carries, so it is damaged")


def _check_plain(file: BinaryIO) -> None:
    size = file.seek(0, os.SEEK_END)
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        stored = all(member.compress_type == zipfile.ZIP_STORED for member in members)
        if not stored or sum(member.file_size for member in members) > size:
            raise NotSealed("it unpacks to more than it holds")
        (pickle,) = (member for member in members if member.filename.endswith("/data.pkl"))
        for opcode, argument, _ in pickletools.genops(archive.read(pickle)):
            named = str(argument) if opcode.name == "GLOBAL" else opcode.name
            if opcode.name in {"GLOBAL", "INST", "STACK_GLOBAL"} and not PLAIN.fullmatch(named):
                raise NotSealed(f"it holds other things than tensors and plain values: {named}")
