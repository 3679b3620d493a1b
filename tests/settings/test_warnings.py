"""What is loaded with a warning."""

from __future__ import annotations

import pytest

from tests.settings.conftest import Load


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("behaviors:\n  A:\n    framework: pytorch\n", 3, "framework is deprecated"),
        ("behaviors:\n  A:\n    network_settings: {normalise: true}\n", 3, "ML-Agents ignores"),
        ("behaviors:\n  A:\n    network_settings:\n      memory: {sequence: 3}\n", 4, "ML-Agents ignores"),
        ("behaviors:\n  A:\n    self_play: {windows: 3}\n", 3, "ML-Agents ignores"),
        ("behaviors:\n  A:\n    behavioral_cloning: {demo_path: d, step: 3}\n", 3, "ML-Agents ignores"),
        ("torch_settings: {devise: cpu}\n", 1, "ML-Agents ignores"),
        ("checkpoint_settings: {load_model: true}\n", 1, "use resume"),
        ("checkpoint_settings: {train_model: true}\n", 1, "remove it"),
        ("behaviors:\n  A:\n    hyperparameters: {batch_size: 9}\n", 3, "add trainer_type: ppo"),
        (
            "behaviors:\n  A:\n    trainer_type: ppo\n    hyperparameters: {batch_size: 9, buffer_size: 8}\n",
            4,
            "larger",
        ),
    ],
)
def test_doubtful_settings_are_warned_of_and_loaded(load: Load, text: str, line: int, words: str) -> None:
    (warning,) = load(text).warnings
    assert warning.severity == "warning"
    assert warning.line == line
    assert words in warning.message
