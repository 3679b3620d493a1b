from __future__ import annotations

from mlhooks import __version__
from mlhooks.plugins import BUILTIN_PLUGINS, load_plugins


def test_every_builtin_plugin_fits_the_contract_under_its_short_name():
    rows = load_plugins(autoload=False).describe()
    assert [row.name for row in rows] == [module.removeprefix("builtin_plugins.") for module in BUILTIN_PLUGINS]
    assert {(row.distribution, row.version) for row in rows} == {("mlhooks", __version__)}
    assert all(row.hooks for row in rows)


def test_each_builtin_plugin_can_be_blocked_alone():
    for module in BUILTIN_PLUGINS:
        rows = load_plugins(names=[f"no:{module}"], autoload=False).describe()
        assert [row.name for row in rows if row.blocked] == [module.removeprefix("builtin_plugins.")]
