"""Carries a mutant out in this process, by a hook into the import of the modules that it changes."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType

from tests.testing.mutants import MUTANTS
from tests.testing.mutants.patch import Patch

SWITCH, VARIABLE = "mlhooks.fast.switch", "MLHOOKS_PLAIN"


def apply(name: str) -> None:
    """Have the mutant's modules changed when they are imported, before which this must be called.

    Raises:
        RuntimeError: some of them are imported already.
    """
    (mutant,) = [mutant for mutant in MUTANTS if mutant.name == name]
    patch = mutant.patch()
    early = patch.modules
    if mutant.plain:
        os.environ[VARIABLE] = "1"
        early = early | {SWITCH}
    if late := early & sys.modules.keys():
        raise RuntimeError(f"{', '.join(sorted(late))} should not have been imported before {name} is applied.")
    sys.meta_path.insert(0, PatchingFinder(patch))


class PatchingFinder(MetaPathFinder):
    """Finds the modules that a patch changes."""

    def __init__(self, patch: Patch) -> None:
        self.patch = patch

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path, target) if fullname in self.patch.modules else None
        if spec is not None:
            assert spec.origin is not None
            spec.loader = PatchingLoader(fullname, spec.origin, self.patch)
        return spec


class PatchingLoader(SourceFileLoader):
    """Executes a module's changed syntax tree, and changes its functions afterwards."""

    def __init__(self, fullname: str, path: str, patch: Patch) -> None:
        super().__init__(fullname, path)
        self.patch = patch

    def get_code(self, fullname: str) -> CodeType:
        tree = self.patch.rewritten(fullname, self.get_data(self.path))
        code: CodeType = compile(tree, self.path, "exec", dont_inherit=True)
        return code

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        self.patch.surround(module)
