"""`mlhooks export`: models of what a run has learned, written again."""

from __future__ import annotations

from pathlib import Path

import click

from mlhooks.cli import completing
from mlhooks.cli.options import Command, plugin_options
from mlhooks.errors import PluginError
from mlhooks.places import shown_path


def _export(
    run: str,
    behavior: str | None,
    best: bool,
    onnx: bool,
    opset: int | None,
    output: Path | None,
    results_dir: Path,
    plugin_names: tuple[str, ...],
    plugins_dir: Path | None,
) -> None:
    from mlhooks import api

    path = Path(run)
    if not path.exists() and (results_dir / run).exists():
        path = results_dir / run
    files = api.export(
        path,
        behavior,
        best=best,
        output=output,
        only="onnx_export" if onnx else None,
        opset=opset,
        plugin_names=plugin_names,
        plugins_dir=plugins_dir,
    )
    for file in files:
        click.echo(f"Wrote {shown_path(file)}")
    if not files:
        raise PluginError("No exporter wrote anything.")


export = Command(
    "export",
    callback=_export,
    params=[
        click.Argument(["run"], shell_complete=completing.run_ids),
        click.Option(["--behavior"], metavar="NAME", help="Only this behavior of a run. [all]"),
        click.Option(["--best"], is_flag=True, help="Of a run, the best policy of its evaluations. [the last one]"),
        click.Option(["--onnx"], is_flag=True, help="Only the ONNX model, by the plugin onnx_export. [all exporters]"),
        click.Option(
            ["--opset"],
            metavar="N",
            type=click.IntRange(9, 20),
            help="Version of ONNX's operators. [onnx_opset of the run's settings, which is 9]",
        ),
        click.Option(
            ["--output"],
            type=click.Path(file_okay=False, path_type=Path),
            metavar="DIR",
            help="Write into this folder. [where the run writes its models]",
        ),
        click.Option(
            ["--results-dir"],
            type=click.Path(file_okay=False, path_type=Path),
            default="results",
            metavar="DIR",
            help="Folder for the results. [results]",
        ),
        *plugin_options(),
    ],
    help=(
        "Write the models of RUN, a run id, the folder of a run, or a checkpoint: the policy for Python, ONNX for "
        "Unity, and what plugins export."
    ),
)
