from __future__ import annotations

import pytest

from mlhooks.doctor import mlagents
from mlhooks.mlagents_wheel import offers


def test_a_package_that_is_not_there_comes_with_the_commands_that_install_it(monkeypatch):
    monkeypatch.setattr(offers, "is_installed", lambda: False)
    (check,) = mlagents.package()
    assert (check.state, check.text) == ("ok", "not installed")
    assert "--no-deps --ignore-requires-python mlagents==1.1.0" in check.advice


def test_a_package_that_imports_is_good_and_says_how_others_are_built(wheel):
    wheel()
    (check,) = mlagents.package()
    assert (check.state, check.text) == ("ok", "1.1.0, and its trainers import")
    assert "--no-build-isolation" in check.advice


def test_another_version_is_a_warning(wheel, monkeypatch):
    wheel()
    monkeypatch.setattr(mlagents, "VERSION", "1.2.0")
    (check,) = mlagents.package()
    assert check.state == "warning"
    assert "mlagents==1.2.0" in check.advice


@pytest.mark.parametrize("missing", ["cattr", "h5py"])
def test_a_package_that_lacks_something_is_a_problem(missing, wheel):
    wheel(**{"mlagents.plugins.trainer_type": f"raise ModuleNotFoundError('No module', name={missing!r})"})
    (check,) = mlagents.package()
    assert check.state == "problem"
    assert "(mlagents 1.1.0) does not import" in check.text
    assert "mlhooks[mlagents]" in check.text
