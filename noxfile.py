"""How the project checks itself: `nox` runs tests, lint and types, `nox -l` lists the rest.

Every session has an environment of its own, reused from one time to the next. `nox --no-venv -s NAME` runs in the
environment that is active, which must have the `dev` extra.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import nox
from nox.command import CommandFailed

ROOT = Path(__file__).parent
CONSTRAINTS = str(ROOT / "constraints.txt")

nox.options.sessions = ["tests", "lint", "types"]
nox.options.reuse_venv = "yes"


@nox.session
def tests(session: nox.Session) -> None:
    """Run the quick tests; what follows `--` goes to pytest."""
    install(session, "-e", ".[dev]")
    session.run("pytest", *session.posargs)


@nox.session
def slow(session: nox.Session) -> None:
    """Run the tests in which agents learn, which takes an hour; `-- --share 0.25` a quarter of them."""
    install(session, "-e", ".[dev]")
    session.run("pytest", "-m", "slow", *session.posargs)


@nox.session
def plain(session: nox.Session) -> None:
    """Run the tests of networks, training and built-in plugins once more in plain torch and numpy."""
    install(session, "-e", ".[dev]")
    tested = ("tests/nn", "tests/training", "tests/builtin_plugins", "tests/testing")
    session.run("pytest", *tested, *session.posargs, env={"MLHOOKS_PLAIN": "1"})


@nox.session
def mutants(session: nox.Session) -> None:
    """Try plugins that are wrong on purpose, each of which a conformance test must catch; `-- --share 0.1` a tenth."""
    install(session, "-e", ".[dev]")
    session.run("pytest", "-m", "mutants", *session.posargs)


@nox.session
def reliability(session: nox.Session) -> None:
    """Kill runs and damage their files at random; `-- --share 0.05` does a twentieth of it."""
    install(session, "-e", ".[dev]")
    session.run("pytest", "-m", "reliability", "tests/reliability", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format."""
    install(session, "ruff")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check types."""
    install(session, "-e", ".[dev]")
    session.run("mypy")
    session.run("mypy", *map(str, sorted((ROOT / "examples").glob("*/src"))))


@nox.session
def examples(session: nox.Session) -> None:
    """Install the example packages, in a folder that is removed afterwards, test and validate them."""
    install(session, "-e", ".[dev]")
    packages = [str(path) for path in sorted((ROOT / "examples").glob("mlhooks-*"))]
    with tempfile.TemporaryDirectory() as folder:
        session.run("python", "-m", "pip", "install", "-q", "--no-deps", "--target", folder, *packages)
        for package in packages:
            tested = (f"{package}/tests", "--mlhooks-plugin", package)
            session.run("pytest", *tested, *session.posargs, env={"PYTHONPATH": folder})


@nox.session
def build(session: nox.Session) -> None:
    """Build sdist and wheel; install the wheel in an empty environment elsewhere, and train and act with it there."""
    install(session, "build")
    with tempfile.TemporaryDirectory() as folder, session.chdir(ROOT):
        dist, elsewhere = Path(folder, "dist"), Path(folder, "elsewhere")
        pinned = {"PIP_CONSTRAINT": CONSTRAINTS}
        session.run("python", "-m", "build", "--outdir", str(dist), env=pinned)
        (wheel,) = dist.glob("*.whl")
        session.run("python", "-m", "venv", str(elsewhere))
        scripts = elsewhere / ("Scripts" if sys.platform == "win32" else "bin")
        session.chdir(elsewhere)
        outside = {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}", "VIRTUAL_ENV": None, "PYTHONPATH": None}
        python, mlhooks = str(scripts / "python"), str(scripts / "mlhooks")
        session.run(python, "-m", "pip", "install", "-q", "-c", CONSTRAINTS, str(wheel), env=outside, external=True)
        short = ("--set", "behaviors.3DBall.max_steps=24000")
        session.run(mlhooks, "run", "3dball_ppo", *short, env=outside, external=True)
        session.run(python, "-c", ACT, env=outside, external=True)
        session.run(mlhooks, "plugins", "new", "mlhooks-mine", "--kind", "trainer", env=outside, external=True)


ACT = """
import mlhooks, numpy, pathlib
assert "elsewhere" in mlhooks.__file__
assert (pathlib.Path(mlhooks.__file__).parent / "py.typed").exists()
assert pathlib.Path("results/ppo/curve.png").exists()
print("acts:", mlhooks.load("results/ppo").predict(numpy.zeros(8, numpy.float32)))
"""


@nox.session(name="min-versions")
def min_versions(session: nox.Session) -> None:
    """Run the quick tests with the lowest versions that the package allows; torch stays at the pinned one."""
    project = nox.project.load_toml(ROOT / "pyproject.toml")["project"]
    direct = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    lowest = [requirement.replace(">=", "==") for requirement in direct if not requirement.startswith("torch>")]
    install(session, "torch")
    session.install(*lowest, "-e", ".")
    session.run("pytest", *session.posargs)


@nox.session(name="unity-versions")
@nox.parametrize(
    "versions",
    [("protobuf==4.25.*", "grpcio==1.60.*", "onnx==1.17.*"), ("protobuf", "grpcio")],
    ids=["lowest", "newest"],
)
def unity_versions(session: nox.Session, versions: tuple[str, ...]) -> None:
    """Run the tests of the Unity protocol with the lowest and the newest protobuf and grpc."""
    install(session, "-e", ".[dev]")
    session.install("--upgrade", *versions)
    session.run("pytest", "tests/unity", "tests/sim_player", *session.posargs)


@nox.session
def faults(session: nox.Session) -> None:
    """Try every fault of one of four players 20 times (or as often as told after `--`), each time at a random step."""
    install(session, "-e", ".[dev]")
    tests = ("-m", "slow", "-k", "survives_the_fault", "tests/builtin_plugins/test_processes.py")
    rounds = int(session.posargs[0]) if session.posargs else 20
    failed = 0
    for _ in range(rounds):
        try:
            session.run("pytest", "-q", *tests)
        except CommandFailed:
            failed += 1
    if failed:
        session.error(f"{failed} of {rounds} rounds failed")


@nox.session
def mlagents(session: nox.Session) -> None:
    """Run the tests of ML-Agents' own package, installed as the docs say; `--force-python` tries another Python."""
    install(session, "-e", ".[dev,mlagents]")
    if session.venv_backend != "none":
        session.install("--no-deps", "--ignore-requires-python", "mlagents==1.1.0")
    session.run("pytest", "tests/mlagents_wheel", *session.posargs)


@nox.session
def atari(session: nox.Session) -> None:
    """Run the tests of Atari games, slow ones included, which are skipped where these are not installed."""
    install(session, "-e", ".[dev,atari]")
    session.run("pytest", "-m", "slow or not slow", "tests/builtin_plugins/test_atari.py", *session.posargs)


@nox.session(venv_backend="none")
def bench(session: nox.Session) -> None:
    """Measure the speed of the workloads named after `--`, or of all, beside other libraries."""
    session.run(sys.executable, "benchmarks/speed.py", *session.posargs)


def install(session: nox.Session, *packages: str) -> None:
    """Install pinned versions, unless `--no-venv` says that everything is there."""
    if session.venv_backend != "none":
        session.install("-c", CONSTRAINTS, *packages)
