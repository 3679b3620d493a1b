from __future__ import annotations

import subprocess
import sys


def test_settings_need_neither_torch_nor_numpy() -> None:
    modules = "mlhooks.settings, mlhooks.settings.support, mlhooks.settings.schema, mlhooks.cli.config"
    script = f"import sys, {modules}; print({{'torch', 'numpy'}} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
