"""Compiles `mlhooks/nn/native.pyx` when mlhooks is installed; without a C compiler it is left out, with a warning."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NATIVE = Path("mlhooks", "nn", "native.pyx")


class Compiled(BuildHookInterface[Any]):
    """Puts the extension module beside its source."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - hatchling calls it
        """Compile, before the wheel is put together."""
        try:
            compile_native(Path(self.root))
        except (Exception, SystemExit) as error:
            self.app.display_warning(
                f"mlhooks is installed without its compiled part, and trains small networks more slowly: {error}"
            )
            return
        build_data["artifacts"].append(f"/{NATIVE.with_suffix('.*.so')}")
        build_data.update(pure_python=False, infer_tag=True)


def compile_native(root: Path) -> None:
    """Make the extension module anew."""
    import numpy
    from Cython.Build import cythonize
    from setuptools import Distribution, Extension
    from setuptools.command.build_ext import build_ext

    extension = Extension(
        "mlhooks.nn.native",
        [str(root / NATIVE)],
        include_dirs=[numpy.get_include(), str(root / NATIVE.parent)],
        define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")],
        # errno and traps keep compilers from computing several numbers at once; psabi warns of nothing that is done
        extra_compile_args=["-O3", "-g0", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi"],
    )
    with tempfile.TemporaryDirectory() as folder:
        made = cythonize([extension], build_dir=folder, quiet=True)
        command = build_ext(Distribution({"name": "mlhooks", "ext_modules": made}))
        command.build_lib = command.build_temp = folder
        command.ensure_finalized()
        command.run()
        shutil.copy(command.get_ext_fullpath(extension.name), root / NATIVE.parent)
