from __future__ import annotations

from typing import Any

import pytest

from mlhooks.settings.environment_parameters import (
    ConstantSettings,
    GaussianSettings,
    MultiRangeUniformSettings,
    ParameterRandomizationSettings,
    UniformSettings,
)
from tests.settings.conftest import Load, Refuse


def parameters(load: Load, text: str) -> dict[str, Any]:
    loaded = load("environment_parameters:\n" + text)
    assert loaded.warnings == []
    values = loaded.options.as_dict()["environment_parameters"]
    assert isinstance(values, dict)
    return values


def lesson(name: str, kind: str, criteria: Any = None, **sampler: Any) -> dict[str, Any]:
    value = {"sampler_type": kind, "sampler_parameters": sampler}
    return {"name": name, "value": value, "completion_criteria": criteria}


@pytest.mark.parametrize(
    ("text", "kind", "sampler"),
    [
        ("3", "constant", {"value": 3.0}),
        ("3e-1", "constant", {"value": 0.3}),
        ("{sampler_type: constant, sampler_parameters: {value: 2}}", "constant", {"value": 2.0}),
        ("{sampler_type: uniform, sampler_parameters: {}}", "uniform", {"min_value": 0.0, "max_value": 1.0}),
        (
            "{sampler_type: uniform, sampler_parameters: {min_value: -1, max_value: 5, seed: 7}}",
            "uniform",
            {"min_value": -1.0, "max_value": 5.0, "seed": 7},
        ),
        ("{sampler_type: gaussian, sampler_parameters: {mean: 2}}", "gaussian", {"mean": 2.0, "st_dev": 1.0}),
        ("{sampler_type: multirangeuniform, sampler_parameters: {}}", "multirangeuniform", {"intervals": [[0.0, 1.0]]}),
        (
            "{sampler_type: multirangeuniform, sampler_parameters: {intervals: [[1, 2], [3, 3]]}}",
            "multirangeuniform",
            {"intervals": [[1.0, 2.0], [3.0, 3.0]]},
        ),
    ],
)
def test_a_number_or_sampler_is_a_single_lesson_named_after_the_parameter(
    load: Load, text: str, kind: str, sampler: dict[str, Any]
) -> None:
    expected = {"curriculum": [lesson("mass", kind, **{"seed": -1, **sampler})]}
    assert parameters(load, f"  mass: {text}\n") == {"mass": expected}


CURRICULUM = """\
  wall:
    curriculum:
      - name: Low
        completion_criteria: {behavior: A, measure: progress, threshold: 0.3}
        value: {sampler_type: uniform, sampler_parameters: {max_value: 4, seed: 3}}
      - name: High
        completion_criteria: {behavior: A, min_lesson_length: 10.0, signal_smoothing: false, require_reset: true}
        value: 6
      - name: Full
        value: 8.0
"""


def test_a_curriculum_with_criteria_and_samplers_per_lesson(load: Load) -> None:
    low = {
        "behavior": "A",
        "measure": "progress",
        "min_lesson_length": 0,
        "signal_smoothing": True,
        "threshold": 0.3,
        "require_reset": False,
    }
    high = {
        "behavior": "A",
        "measure": "reward",
        "min_lesson_length": 10,
        "signal_smoothing": False,
        "threshold": 0.0,
        "require_reset": True,
    }
    assert parameters(load, CURRICULUM)["wall"]["curriculum"] == [
        lesson("Low", "uniform", low, seed=3, min_value=0.0, max_value=4.0),
        lesson("High", "constant", high, seed=-1, value=6.0),
        lesson("Full", "constant", seed=-1, value=8.0),
    ]


def test_what_was_written_is_read_back_equal(load: Load) -> None:
    options = load("environment_parameters:\n" + CURRICULUM + "  mass: 3\n").options
    assert load(options.to_yaml()).options == options


@pytest.mark.parametrize(
    ("text", "line", "key", "words"),
    [
        ("  m: heavy\n", 2, "m", "not a valid value"),
        ("  m: true\n", 2, "m", "not a valid value"),
        ("  m:\n", 2, "m", "not a valid value"),
        ("  m: .nan\n", 2, "m", "not a valid value"),
        ("  m: {sampler_type: uniform}\n", 2, "m.sampler_parameters", "required"),
        ("  m: {sampler_parameters: {}}\n", 2, "m.sampler_type", "required"),
        ("  m: {sampler_type: uniform, sampler_parameters:}\n", 2, "m.sampler_parameters", "is empty"),
        (
            "  m:\n    sampler_type: multirange_uniform\n    sampler_parameters: {}\n",
            3,
            "m.sampler_type",
            "not a valid",
        ),
        (
            "  m:\n    sampler_type: uniform\n    sampler_parameters: {min: 3}\n",
            4,
            "m.sampler_parameters.min",
            "unknown",
        ),
        (
            "  m:\n    sampler_type: uniform\n    sampler_parameters: {min_value: 3}\n",
            4,
            "m.sampler_parameters.min_value",
            "greater than max_value 1.0",
        ),
        (
            "  m:\n    sampler_type: multirangeuniform\n    sampler_parameters:\n      intervals:\n"
            "        - [1, 2]\n        - [5, 4]\n",
            7,
            "m.sampler_parameters.intervals.1",
            "greater",
        ),
        (
            "  m:\n    sampler_type: multirangeuniform\n    sampler_parameters: {intervals: [[1, 2, 3]]}\n",
            4,
            "m.sampler_parameters.intervals.0",
            "not a valid value",
        ),
        ("  m: {curriculum: []}\n", 2, "m.curriculum", "not a valid value"),
        ("  m: {curriculum: 3}\n", 2, "m.curriculum", "list of lessons"),
        ("  m: {curriculum: [3]}\n", 2, "m.curriculum.0", "must be a section"),
        ("  m:\n    curriculum:\n      - {name: a, value: 1}\n    lessons: 3\n", 5, "m.lessons", "unknown key"),
        ("  m:\n    curriculum:\n      - {name: a}\n", 4, "m.curriculum.0.value", "required"),
        (
            "  m:\n    curriculum:\n      - name: a\n        value: 1\n      - {name: b, value: 2}\n",
            4,
            "m.curriculum.0",
            "the lesson a needs completion_criteria",
        ),
        (
            "  m:\n    curriculum:\n      - name: a\n        value: 1\n        completion_criteria:\n"
            "          behavior: A\n          measure: progress\n          threshold: 1.5\n"
            "      - {name: b, value: 2}\n",
            9,
            "m.curriculum.0.completion_criteria.threshold",
            "between 0 and 1",
        ),
    ],
)
def test_mistakes_are_found_at_their_place(refuse: Refuse, text: str, line: int, key: str, words: str) -> None:
    (finding,) = refuse("environment_parameters:\n" + text)
    assert (finding.line, finding.key) == (line, f"environment_parameters.{key}")
    assert words in finding.message


def test_old_sampler_names_lead_to_the_new(refuse: Refuse) -> None:
    text = "environment_parameters: {m: {sampler_type: multirange_uniform, sampler_parameters: {}}}"
    assert refuse(text)[0].nearest == "multirangeuniform"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("  m:\n    sampler_type: uniform\n    sampler_parameters: {}\n    seed: 3\n", 5, "ML-Agents ignores"),
        (
            "  m:\n    curriculum:\n      - name: a\n        value: 1\n        completion_criteria: {behavior: A}\n",
            6,
            "a is the last lesson",
        ),
    ],
)
def test_doubtful_settings_are_warned_of(load: Load, text: str, line: int, words: str) -> None:
    (warning,) = load("environment_parameters:\n" + text).warnings
    assert warning.line == line
    assert words in warning.message


def test_a_lesson_that_waits_for_an_unknown_behavior_is_refused(load: Load, refuse: Refuse) -> None:
    (first, second) = refuse("behaviors: {B: {}, A2: {}}\nenvironment_parameters:\n" + CURRICULUM)
    assert (first.line, first.found, first.allowed, first.nearest) == (6, "A", "B, A2", "A2")
    assert second.line == 9
    with_defaults = "default_settings: {}\nbehaviors: {B: {}}\nenvironment_parameters:\n" + CURRICULUM
    assert load(with_defaults).warnings == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (ConstantSettings(value=2.5), "2.5"),
        (UniformSettings(min_value=0.5, max_value=10), "uniform from 0.5 to 10"),
        (GaussianSettings(mean=1, st_dev=2), "gaussian with mean 1 and deviation 2"),
        (MultiRangeUniformSettings(intervals=[(1, 2), (7, 8.5)]), "uniform from 1 to 2 or 7 to 8.5"),
    ],
)
def test_values_are_said_in_words(value: ParameterRandomizationSettings, text: str) -> None:
    assert str(value) == text
