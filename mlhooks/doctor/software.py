"""Checks of the packages that are installed, and whether they fit."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from importlib import metadata

from packaging.requirements import Requirement

from mlhooks import __version__
from mlhooks.doctor.check import Check
from mlhooks.fast.native import is_outdated
from mlhooks.fast.switch import VARIABLE, is_plain, native

NAMED = ("torch", "numpy", "grpcio", "protobuf", "mlagents-envs")
"""Distributions whose versions people are asked for."""
DEVELOPMENT = "dev"
_BACKEND = "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"


def versions() -> Iterator[Check]:
    """Check the versions of Python and mlhooks."""
    system = f"{platform.system()} {platform.machine()}"
    yield Check("Python", "ok", f"{platform.python_version()} on {system}, {sys.executable}")
    yield Check("mlhooks", "ok", __version__)
    if is_plain():
        yield Check("native extension", "ok", f"switched off by {VARIABLE}: all is plain torch and numpy")
    elif is_outdated():
        advice = "Install mlhooks here again: pip install -c constraints.txt -e ."
        yield Check("native extension", "warning", "built from other sources than there are now", advice)
    elif loops := native("loops"):
        yield Check("native extension", "ok", f"installed, for {loops.kinds()[0]}")
    else:
        advice = "Small networks train faster with it: install a C compiler, such as gcc, and mlhooks again."
        yield Check("native extension", "ok", "not installed", advice)


def requirements() -> Iterator[Check]:
    """Check the versions of the packages that mlhooks needs."""
    wanted = {requirement.name: requirement for requirement in needed_by("mlhooks")}
    for name in [*NAMED, *(name for name in wanted if name not in NAMED)]:
        complaints = list(_unmet(wanted.get(name, Requirement(name))))
        for complaint in complaints:
            yield Check(name, "problem", complaint, f'Install it: pip install "{wanted.get(name, name)}"')
        if not complaints and name in NAMED:
            yield Check(name, "ok", metadata.version(name))


def extras() -> Iterator[Check]:
    """List the packages with which mlhooks can do more, installed or not."""
    for extra in sorted(set(metadata.metadata("mlhooks").get_all("Provides-Extra") or ()) - {DEVELOPMENT}):
        complaints = [text for requirement in needed_by("mlhooks", extra) for text in _unmet(requirement)]
        text = f"not there: {'; '.join(complaints)}" if complaints else "installed"
        advice = f"If you need it: pip install 'mlhooks[{extra}]'" if complaints else ""
        yield Check(f"extra {extra}", "ok", text, advice)


def needed_by(distribution: str, extra: str = "") -> list[Requirement]:
    """Return what a distribution requires here, or only what one of its extras adds."""
    try:
        texts = metadata.requires(distribution) or ()
    except metadata.PackageNotFoundError:
        return []
    found = [Requirement(text) for text in texts]
    return [
        requirement
        for requirement in found
        if (not extra and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})))
        or (
            extra
            and requirement.marker is not None
            and requirement.marker.evaluate({"extra": extra})
            and not requirement.marker.evaluate({"extra": ""})
        )
    ]


def _unmet(requirement: Requirement) -> Iterator[str]:
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        yield f"{requirement.name} is not installed"
        return
    if not requirement.specifier.contains(version, prereleases=True):
        yield f"{requirement.name} {version} is installed, and {requirement.specifier} is needed"
    for extra in requirement.extras:
        for further in needed_by(requirement.name, extra):
            yield from _unmet(further)


def protocol() -> Iterator[Check]:
    """Check the Unity protocol on the installed protobuf and mlagents-envs."""
    from google.protobuf.internal import api_implementation  # type: ignore[import-untyped]

    backend = api_implementation.Type()
    if backend == "python":
        advice = (
            f"Unset the environment variable {_BACKEND}."
            if os.environ.get(_BACKEND)
            else "Install protobuf again: pip install --force-reinstall protobuf"
        )
        yield Check("protobuf backend", "warning", "python, which is slow: it has no compiled part here", advice)
    else:
        yield Check("protobuf backend", "ok", backend)
    yield _bridge()


def _bridge() -> Check:
    from mlhooks.errors import MlhooksError
    from mlhooks.unity import schema

    schema.install()
    try:
        from mlagents_envs.communicator_objects.unity_message_pb2 import UnityMessageProto
        from mlagents_envs.environment import UnityEnvironment

        message = UnityMessageProto()
        message.header.status = 200
        back = UnityMessageProto.FromString(message.SerializeToString()).header.status
    except MlhooksError as error:
        return Check("Unity protocol", "problem", str(error))
    except ImportError as error:
        return Check("Unity protocol", "problem", f"It does not import: {error}", "Install mlhooks again.")
    if back != message.header.status:
        return Check("Unity protocol", "problem", "A message did not survive protobuf.", "Install protobuf again.")
    return Check("Unity protocol", "ok", f"{UnityEnvironment.API_VERSION}; players of 1.0 and later fit")
