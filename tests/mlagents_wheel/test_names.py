from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mlhooks.cli import main
from mlhooks.errors import PluginError, SettingsError
from mlhooks.mlagents_plugins import tell_namesakes
from mlhooks.plugin_sources import describe
from mlhooks.plugins import load_plugins
from mlhooks.settings import SettingsRegistry, load_run_options
from mlhooks.settings.findings import lines
from mlhooks.training.admission import admit

GROUP = "mlagents.trainer_type"
PACKAGE = """
    import attr
    from mlagents.trainers.trainer import Trainer

    @attr.s(auto_attribs=True)
    class Settings:
        batch_size: int = 512
        learning_rate: float = 1e-3
        temperature: float = attr.ib(default=0.5)
        rounds: int = attr.ib()

        @rounds.default
        def _rounds(self):
            return self.batch_size // 2

        @temperature.validator
        def _check(self, attribute, value):
            if value < 0:
                raise ValueError("temperature must not be negative")

    class Mine(Trainer):
        def advance(self): ...

    def get_type_and_setting():
        return {NAME: Mine}, {NAME: Settings}
"""


def package(name: str) -> str:
    return f"NAME = {name!r}\n" + "\n".join(line[4:] for line in PACKAGE.splitlines())


def types(**arguments):
    return load_plugins(**arguments).collect_mapping("get_trainer_types")


def test_nothing_of_mlagents_is_imported_where_nobody_asks(wheel):
    wheel()
    found = types()
    assert {"mlagents:ppo", "mlagents:sac", "mlagents:poca", "poca"} <= found.keys()
    for name in ("ppo", "sac", "poca"):
        assert found[name] is not found[f"mlagents:{name}"]
    without = types(names=["no:poca"])
    assert without["poca"] is without["mlagents:poca"]
    load_run_options({"behaviors": {"A": {"trainer_type": "ppo"}}}, SettingsRegistry(found))
    assert [name for name in sys.modules if name.startswith("mlagents.")] == []


def test_without_the_package_there_are_none(install):
    install("unrelated", {})
    if "mlagents" in {row.name for row in load_plugins().describe()}:
        pytest.skip("the package is installed here")
    assert [name for name in types() if name.startswith("mlagents:")] == []


def test_a_package_is_listed_with_its_distribution_and_offered_by_both_names(wheel, install, capsys):
    wheel()
    install("my-trainers", {"mine": "my_trainers:get_type_and_setting"}, group=GROUP, my_trainers=package("fancy"))
    found = types()
    assert found["fancy"] is found["mlagents:fancy"]
    assert main(["plugins"]) == 0
    assert "my-trainers 1.2" in " ".join(capsys.readouterr().out.split())


def test_a_bare_name_that_a_built_in_has_is_the_built_in_after_a_line_that_names_both(wheel, install, caplog):
    wheel()
    install("my-trainers", {"a2c": "my_trainers:get_type_and_setting"}, group=GROUP, my_trainers=package("a2c"))
    plugins = load_plugins()
    claims = plugins.collect_claims("get_trainer_types")
    assert claims["a2c"][0].distribution == "mlhooks"
    assert claims["mlagents:a2c"][0].distribution == "my-trainers"
    admit({"behaviors": {"A": {"trainer_type": "a2c"}}, "env_settings": {"env_path": "sim:Basic"}} | NAMED, plugins)
    (line,) = [line for line in caplog.messages if "trainer_type a2c" in line]
    assert "'a2c' (mlhooks" in line
    assert "'my-trainers.a2c' (my-trainers 1.2)" in line
    assert "mlagents:a2c" in line
    assert "-p no:a2c" in line


NAMED = {"behaviors": {"Basic": {"trainer_type": "a2c"}}}


def test_a_blocked_built_in_leaves_its_name_to_the_package(wheel, install, caplog):
    wheel()
    install("my-trainers", {"a2c": "my_trainers:get_type_and_setting"}, group=GROUP, my_trainers=package("a2c"))
    plugins = load_plugins(names=["no:a2c"])
    claims = plugins.collect_claims("get_trainer_types")
    assert claims["a2c"] == claims["mlagents:a2c"]
    tell_namesakes({"a2c"}, plugins)
    assert caplog.messages == []


def test_a_blocked_package_is_not_offered(wheel, install):
    wheel()
    install("my-trainers", {"mine": "my_trainers:get_type_and_setting"}, group=GROUP, my_trainers=package("fancy"))
    assert "fancy" not in types(names=["no:mine"])
    assert "my_trainers" not in sys.modules


def test_package_takes_the_place_of_ml_agents_own_type_of_that_name(wheel, install, caplog):
    wheel()
    install("my-trainers", {"mine": "mine:get_type_and_setting"}, group=GROUP, mine=package("ppo"))
    plugins = load_plugins()
    plugins.configure(None)
    claims = plugins.collect_claims("get_trainer_types")
    assert claims["mlagents:ppo"][0].distribution == "my-trainers"
    assert claims["ppo"][0].distribution == "mlhooks"
    assert claims["mlagents:sac"][0].distribution == "mlagents"
    assert "mlagents:ppo is that of plugin 'mine' (my-trainers 1.2), in place of ML-Agents' own." in caplog.text


def test_two_packages_with_one_name_are_both_named(wheel, install):
    wheel()
    install("one-trainers", {"one": "one_trainers:get_type_and_setting"}, group=GROUP, one_trainers=package("fancy"))
    install("two-trainers", {"two": "two_trainers:get_type_and_setting"}, group=GROUP, two_trainers=package("fancy"))
    with pytest.raises(PluginError, match=r"fancy'.*\(two-trainers 1\.2\).*\(one-trainers 1\.2\).*-p no:NAME"):
        types()


BAD = {
    "a package that does not import": ("import a_module_that_nobody_has", "a_module_that_nobody_has"),
    "no function": ("", "get_type_and_setting"),
    "no pair": ("def get_type_and_setting(): return {}", "not a pair"),
    "no trainer": ("def get_type_and_setting(): return {'fancy': int}, {'fancy': int}", "must be a trainer class"),
    "an abstract method": (
        "from mlagents.trainers.trainer import Trainer\n"
        "class Mine(Trainer): ...\n"
        "def get_type_and_setting(): return {'fancy': Mine}, {'fancy': int}",
        "lacks advance",
    ),
    "no settings": (
        "from mlagents.trainers.trainer import Trainer\n"
        "class Mine(Trainer):\n    def advance(self): ...\n"
        "def get_type_and_setting(): return {'fancy': Mine}, {}",
        "no settings class",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_package_is_named_with_its_version(case, wheel, install):
    wheel()
    source, complaint = BAD[case]
    install("bad-trainers", {"bad": "bad_trainers:get_type_and_setting"}, group=GROUP, bad_trainers=source)
    with pytest.raises(PluginError, match=rf"'bad' \(bad-trainers 1\.2\) does not load: .*{complaint}.*-p no:bad"):
        load_plugins()
    assert "fancy" not in types(names=["no:bad"])


def test_settings_that_are_no_class_of_attrs_are_named_when_they_are_asked_for(wheel, install):
    wheel()
    source = package("fancy").replace("{NAME: Settings}", "{NAME: int}")
    install("bad-trainers", {"bad": "bad_trainers:get_type_and_setting"}, group=GROUP, bad_trainers=source)
    plugins = load_plugins()
    with pytest.raises(PluginError, match=r"'bad' \(bad-trainers 1\.2\).*must be a class of attrs"):
        load_run_options({"behaviors": {"A": {"trainer_type": "fancy"}}}, SettingsRegistry.from_plugins(plugins))


def options(values, plugins):
    written = {"behaviors": {"A": {"trainer_type": "fancy", "hyperparameters": values}}}
    return load_run_options(written, SettingsRegistry.from_plugins(plugins))


def test_hyperparameters_have_the_defaults_of_the_package(wheel, install):
    wheel()
    install("my-trainers", {"mine": "my_trainers:get_type_and_setting"}, group=GROUP, my_trainers=package("fancy"))
    found = options({"batch_size": "64"}, load_plugins()).options.behaviors["A"].hyperparameters.as_dict()
    own = {key: found[key] for key in ("batch_size", "learning_rate", "temperature", "rounds")}
    assert own == {"batch_size": 64, "learning_rate": 1e-3, "temperature": 0.5, "rounds": 32}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": -1.0}, "temperature must not be negative"),
        ({"temprature": 1.0}, "unknown key; found 'temprature'|did you mean temperature"),
        ({"rounds": "many"}, "not a valid value"),
    ],
)
def test_what_the_package_refuses_is_a_finding(values, message, wheel, install):
    wheel()
    install("my-trainers", {"mine": "my_trainers:get_type_and_setting"}, group=GROUP, my_trainers=package("fancy"))
    with pytest.raises(Exception, match=message) as raised:
        options(values, load_plugins())
    assert raised.value.exit_code == 2
    assert all("hyperparameters" in line for line in lines(raised.value.findings))


def test_without_mlagents_the_package_is_left_out_and_a_file_that_asks_says_how_to_get_it(
    install, caplog, capsys, monkeypatch, tmp_path
):
    monkeypatch.setitem(sys.modules, "mlagents", None)
    monkeypatch.chdir(tmp_path)
    source = "from mlagents.trainers.trainer import Trainer"
    install("my-trainers", {"mine": "my_trainers:get_type_and_setting"}, group=GROUP, my_trainers=source)
    plugins = load_plugins()
    plugins.configure(None)
    (line,) = caplog.messages
    assert "'mine' (my-trainers 1.2) is left out" in line
    assert "--ignore-requires-python mlagents==1.1.0" in line
    Path("c.yaml").write_text("behaviors: {A: {trainer_type: fancy}}")
    assert main(["config", "check", "c.yaml"]) == 2
    said = " ".join(capsys.readouterr().out.split())
    assert "(my-trainers 1.2) may bring it" in said
    assert "--ignore-requires-python mlagents==1.1.0" in said


def test_a_package_whose_mlagents_lacks_something_says_what_to_install(wheel, install):
    site = wheel(**{"mlagents.trainers.trainer": "import tensorboard_that_nobody_has"})
    assert site.exists()
    source = "import mlagents.trainers.trainer"
    install("my-trainers", {"mine": "my_trainers:get_type_and_setting"}, group=GROUP, my_trainers=source)
    with pytest.raises(PluginError, match="tensorboard_that_nobody_has"):
        load_plugins()
    (site / "mlagents/trainers/trainer.py").write_text("raise ModuleNotFoundError('no', name='cattr')")
    with pytest.raises(PluginError, match=r"\(my-trainers 1\.2\) does not load: .*needs cattr.*mlhooks\[mlagents\]"):
        load_plugins()


SHOWN = (
    "env_settings: {env_path: 'sim:Basic'}\nplugins: {block: [gail]}\n"
    "behaviors: {Basic: {trainer_type: ppo, self_play: {}, reward_signals: {gail: {demo_path: d}}}}"
)


def test_check_show_and_run_have_one_verdict_and_name_what_would_train_it(wheel, monkeypatch, tmp_path, capsys):
    wheel()
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text(SHOWN)
    for command in (["config", "check", "c.yaml"], ["config", "show", "c.yaml"], ["run", "c.yaml"]):
        assert main(command) == 2
        said = capsys.readouterr()
        assert "trainer_type: mlagents:ppo, for ML-Agents' own trainer" in said.out + said.err
        assert ("save_steps: 20000" in said.out) == (command[1] == "show")


def test_settings_that_only_mlhooks_has_are_refused(wheel):
    wheel()
    source = {
        "env_settings": {"env_path": "sim:Basic"},
        "behaviors": {"Basic": {"trainer_type": "mlagents:ppo", "network_settings": {"activation": "relu"}}},
    }
    with pytest.raises(Exception, match="networks have no activation") as raised:
        admit(source, load_plugins())
    assert raised.value.exit_code == 2


def test_a_package_without_what_it_needs_costs_nobody_who_does_not_ask_for_it(wheel, monkeypatch, tmp_path, capsys):
    wheel(**{"mlagents.plugins.trainer_type": "raise ModuleNotFoundError('No module named cattr', name='cattr')"})
    monkeypatch.chdir(tmp_path)
    native = "env_settings: {env_path: 'sim:Basic'}\nbehaviors: {Basic: {trainer_type: ppo}}"
    Path("native.yaml").write_text(native)
    Path("asks.yaml").write_text(native.replace("ppo", "mlagents:ppo"))
    assert main(["config", "check", "native.yaml"]) == 0
    capsys.readouterr()
    assert main(["config", "check", "asks.yaml"]) == 2
    said = " ".join(capsys.readouterr().out.split())
    assert "(mlagents 1.1.0) does not import" in said
    assert "pip install 'mlhooks[mlagents]'" in said


def test_a_function_that_imports_only_when_it_is_called_is_left_out_like_any_other(install, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "mlagents", None)
    source = "def get_type_and_setting():\n    from mlagents.trainers.trainer import Trainer"
    install("my-trainers", {"mine": "my_trainers:get_type_and_setting"}, group=GROUP, my_trainers=source)
    load_plugins().configure(None)
    assert "'mine' (my-trainers 1.2) is left out" in caplog.text


def test_one_function_may_bring_several_trainers(wheel, install):
    wheel()
    source = package("One").replace(
        "{NAME: Mine}, {NAME: Settings}", "{'One': Mine, 'One-More': Mine}, {'One': Settings, 'One-More': Settings}"
    )
    install("my-trainers", {"any": "my_trainers:get_type_and_setting"}, group=GROUP, my_trainers=source)
    assert {"One", "One-More", "mlagents:One", "mlagents:One-More"} <= types().keys()


def test_an_own_trainer_that_is_blocked_is_not_said_to_be_missing(wheel):
    wheel()
    registry = SettingsRegistry(types(names=["no:mlagents"]))
    with pytest.raises(SettingsError, match="installed and not loaded: remove -p no:mlagents;") as caught:
        load_run_options({"behaviors": {"A": {"trainer_type": "mlagents:ppo"}}}, registry)
    assert "pip install" not in str(caught.value)


def test_a_failure_is_told_with_the_line_of_the_package_whose_code_others_call():
    def function(module: str, source: str, **names):
        namespace = {"__name__": module, **names}
        exec(compile(source, f"{module}.py", "exec"), namespace)
        return namespace["f"]

    fails = function("acme.losses", "\ndef f():\n    raise ValueError('no loss')")
    calls = function("mlagents.trainers", "def f():\n    inner()", inner=fails)
    with pytest.raises(ValueError, match="no loss") as caught:
        calls()
    assert describe(caught.value, "acme.trainer") == "ValueError: no loss (acme.losses.py:3)"
    assert describe(caught.value, "mlagents.trainers.ppo") == "ValueError: no loss (mlagents.trainers.py:2)"
    assert "no loss (" in describe(caught.value, "other")


def test_a_function_may_return_its_pair_as_a_list(wheel, install):
    wheel()
    source = package("listed").replace(
        "return {NAME: Mine}, {NAME: Settings}", "return [{NAME: Mine}, {NAME: Settings}]"
    )
    install("my-trainers", {"listed": "my_trainers:get_type_and_setting"}, group=GROUP, my_trainers=source)
    assert "mlagents:listed" in types()
