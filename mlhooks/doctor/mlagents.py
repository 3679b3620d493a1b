"""ML-Agents' own package `mlagents`, and what was installed for it."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata

from mlhooks.doctor.check import Check

VERSION = "1.1.0"
"""The version that mlhooks was made to run."""
BUILDING = (
    "A package for it whose setup.py imports mlagents, and which pip fails to build, installs by: "
    "pip install --no-deps --no-build-isolation PACKAGE"
)


def package() -> Iterator[Check]:
    """Check the package, where it is installed: its version, and whether it imports with what it needs."""
    from mlhooks.errors import PluginError
    from mlhooks.mlagents_wheel.offers import HOW_TO_GET, PACKAGE, is_installed, own_offers

    if not is_installed():
        advice = f"For trainers of ML-Agents and packages that were made for it: {HOW_TO_GET}"
        yield Check(PACKAGE, "ok", "not installed", advice)
        return
    try:
        version = metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        version = "of an unknown version"
    try:
        for offer in own_offers():
            _ = offer.classes
    except PluginError as error:
        yield Check(PACKAGE, "problem", str(error))
        return
    if version != VERSION:
        advice = f"Install {VERSION}: pip install --no-deps --ignore-requires-python {PACKAGE}=={VERSION}"
        yield Check(PACKAGE, "warning", f"{version}, and mlhooks was made to run {VERSION}", advice)
    else:
        yield Check(PACKAGE, "ok", f"{version}, and its trainers import", BUILDING)
