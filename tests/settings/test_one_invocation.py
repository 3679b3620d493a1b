"""Settings that are said for one invocation."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.settings.conftest import Load


class TestResumeAndInitialize:
    BOTH = "behaviors: {A: {}}\ncheckpoint_settings: {resume: true, initialize_from: old}\n"

    def test_resume_wins_within_a_file(self, load: Load) -> None:
        loaded = load(self.BOTH)
        assert loaded.options.checkpoint_settings.resume
        assert loaded.options.checkpoint_settings.initialize_from is None
        assert "initialize_from is ignored" in loaded.warnings[0].message

    def test_a_flag_wins_over_the_file(self, load: Load) -> None:
        loaded = load(self.BOTH, flags={"checkpoint_settings.initialize_from": "new"})
        assert not loaded.options.checkpoint_settings.resume
        assert loaded.options.checkpoint_settings.initialize_from == "new"
        assert "resume is ignored" in loaded.warnings[0].message

    def test_resume_wins_between_flags(self, load: Load) -> None:
        flags = {"checkpoint_settings.initialize_from": "new", "checkpoint_settings.resume": True}
        assert load(self.BOTH, flags=flags).options.checkpoint_settings.initialize_from is None


class TestWhatIsSaidForOneInvocation:
    """`force`, `resume` and `inference` of a file are shown, and have no effect on a run."""

    TEXT = "behaviors: {A: {}}\ncheckpoint_settings:\n  force: true\n  resume: true\n  inference: true\n"
    KEYS = ("force", "resume", "inference")

    def test_a_file_is_shown_as_it_is(self, load: Load) -> None:
        loaded = load(self.TEXT)
        assert all(getattr(loaded.options.checkpoint_settings, key) for key in self.KEYS)
        assert loaded.warnings == []

    def test_a_file_has_no_effect_on_a_run_and_each_is_named_with_its_line(self, load: Load) -> None:
        loaded = load(self.TEXT, for_run=True)
        assert not any(getattr(loaded.options.checkpoint_settings, key) for key in self.KEYS)
        found = [(warning.line, warning.column, warning.key) for warning in loaded.warnings]
        assert found == [(line, column, f"checkpoint_settings.{key}") for line, column, key in (
            (3, 10, "force"), (4, 11, "resume"), (5, 14, "inference")
        )]  # fmt: skip
        assert "--force" in loaded.warnings[0].message

    @pytest.mark.parametrize("key", KEYS)
    @pytest.mark.parametrize("section", [False, True])
    def test_flags_and_overrides_count(self, load: Load, key: str, section: bool) -> None:
        flag = load(self.TEXT, for_run=True, flags={f"checkpoint_settings.{key}": True})
        override = f"checkpoint_settings={{{key}: true}}" if section else f"checkpoint_settings.{key}=true"
        said = load(self.TEXT, for_run=True, overrides=[override])
        for loaded in (flag, said):
            settings = loaded.options.checkpoint_settings
            assert [name for name in self.KEYS if getattr(settings, name)] == [key]

    def test_resume_of_a_file_does_not_take_initialize_from_away(self, load: Load) -> None:
        text = "behaviors: {A: {}}\ncheckpoint_settings: {resume: true, initialize_from: old}\n"
        assert load(text, for_run=True).options.checkpoint_settings.initialize_from == "old"

    def test_resume_keeps_what_the_run_once_began_with_and_complains_of_nothing(self, load: Load) -> None:
        text = "behaviors: {A: {}}\ncheckpoint_settings: {initialize_from: old}\n"
        loaded = load(text, for_run=True, flags={"checkpoint_settings.resume": True})
        assert (loaded.options.checkpoint_settings.resume, loaded.warnings) == (True, [])
        assert loaded.options.to_store().checkpoint_settings.initialize_from == "old"

    def test_they_are_stored_as_not_said(self, load: Load) -> None:
        options = load(self.TEXT).options
        stored = yaml.safe_load(options.to_store().to_yaml())["checkpoint_settings"]
        assert not any(stored[key] for key in self.KEYS)
        assert options.checkpoint_settings.force

    def test_results_dir_is_stored_as_it_was_said(self, load: Load, tmp_path: Path) -> None:
        options = load("behaviors: {A: {}}\ncheckpoint_settings: {results_dir: out}\n").options
        options.checkpoint_settings.anchor(tmp_path)
        assert options.checkpoint_settings.write_path == str(tmp_path / "out" / "ppo")
        assert options.to_store().checkpoint_settings.results_dir == "out"
