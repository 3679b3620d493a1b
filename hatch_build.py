"""Compiles `mlhooks/fast/native` when mlhooks is installed; without a C compiler it is left out, with a warning."""

from __future__ import annotations

import runpy
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NATIVE = Path("mlhooks", "fast", "native")


class Compiled(BuildHookInterface[Any]):
    """Puts extension modules beside their sources."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - hatchling calls it
        """Compile, before the wheel is put together."""
        try:
            compile_native(Path(self.root))
        except (Exception, SystemExit) as error:
            self.app.display_warning(
                f"mlhooks is installed without its native extension, and trains small networks more slowly: {error}"
            )
            return
        build_data["artifacts"].append(f"/{NATIVE.as_posix()}/*.so")
        build_data.update(pure_python=False, infer_tag=True)


def compile_native(root: Path) -> None:
    """Make the extension modules again."""
    import numpy
    from Cython.Build import cythonize
    from setuptools import Distribution, Extension
    from setuptools.command.build_ext import build_ext

    extensions = [
        Extension(
            ".".join([*NATIVE.parts, source.stem]),
            [str(source), *(map(str, sorted(source.parent.glob("*.c"))) if source.stem == "loops" else ())],
            include_dirs=[numpy.get_include(), str(root / NATIVE)],
            define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")],
            # errno and traps keep compilers from computing several numbers at once; psabi warns of nothing that is done
            extra_compile_args=["-O3", "-g0", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi"],
        )
        for source in sorted((root / NATIVE).glob("*.pyx"))
    ]
    with tempfile.TemporaryDirectory() as folder:
        made = cythonize(extensions, build_dir=folder, include_path=[str(root)], quiet=True)
        command = build_ext(Distribution({"name": "mlhooks", "ext_modules": made}))
        command.build_lib = command.build_temp = folder
        command.parallel = True
        command.ensure_finalized()
        command.run()
        for extension in extensions:
            built = Path(command.get_ext_fullpath(extension.name))
            # Writing to a module that a running process has mapped would crash it; replacing the file does not.
            beside = Path(shutil.copy(built, root / NATIVE / f"{built.name}.new"))
            beside.replace(root / NATIVE / built.name)
    runpy.run_path(str(root / NATIVE / "__init__.py"))["note_build"]()
