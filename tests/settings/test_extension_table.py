from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mlhooks.plugins import load_plugins
from mlhooks.settings import (
    EvaluationSettings,
    HyperparameterSettings,
    NetworkSettings,
    RunOptions,
    SettingsModel,
    SettingsRegistry,
    TeamSettings,
    TrainerSettings,
)
from mlhooks.settings.base import allowed_values, is_extension

DOCUMENT = Path(__file__).parents[2] / "docs" / "configuration.md"


@pytest.fixture(scope="module")
def registry() -> SettingsRegistry:
    return SettingsRegistry.from_plugins(load_plugins(autoload=False))


def sections(registry: SettingsRegistry) -> Iterator[tuple[str, type[SettingsModel]]]:
    """Yield every section of the configuration that may hold extensions, and its key path."""
    yield "behaviors.NAME", TrainerSettings
    yield "behaviors.NAME.evaluation", EvaluationSettings
    yield "behaviors.NAME.network_settings", NetworkSettings
    for name, model in registry.reward_signal_models().items():
        yield f"behaviors.NAME.reward_signals.{name}", model
    for name, field in RunOptions.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, SettingsModel):
            yield name, field.annotation
            if name == "env_settings":
                yield "env_settings.teams[]", TeamSettings


def rows(registry: SettingsRegistry) -> list[str]:
    found = [(path, model, "") for path, model in sections(registry)]
    for name in sorted(registry.trainer_types):
        model = registry.hyperparameters(name)
        assert model is not None
        found.append(("behaviors.NAME.hyperparameters", model, f" (`{name}`)"))
    lines: dict[str, str] = {}
    for path, section, owner in found:
        for key, field in section.model_fields.items():
            if is_extension(field) or section in (EvaluationSettings, TeamSettings):  # These are so as a whole.
                default = "null" if field.default is None else str(field.default).lower()
                default = "required" if field.is_required() else default
                row = f"| {allowed_values(field)} | {default} | {field.description} |"
                name = f"`{path}.{key}`"
                lines[name] = lines.get(name, f"| {name}OWNER {row}").replace("OWNER", f"{owner}OWNER")
    return [line.replace("OWNER", "") for line in lines.values()]


def test_the_table_of_extensions_is_complete_and_true(registry: SettingsRegistry) -> None:
    table = DOCUMENT.read_text(encoding="utf-8").partition("## Extensions")[2]
    documented = [line for line in table.splitlines() if line.startswith("| `")]
    assert documented == rows(registry), "the table should read:\n" + "\n".join(rows(registry))


def test_no_hyperparameter_that_mlagents_has_is_an_extension() -> None:
    assert not any(is_extension(field) for field in HyperparameterSettings.model_fields.values())
