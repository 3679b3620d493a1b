"""Agent-steps per second of random actions over the Unity protocol: `mlagents_envs` as it is, and mlhooks.

The player is a process that sends prepared bytes of 3DBall's shape and ignores what it gets, so that what is measured
is the trainer's side. Both are measured in turns, and their medians compared: `python benchmarks/unity_protocol.py`.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from mlhooks.unity import messages, schema

schema.install()

from mlagents_envs.communicator_objects.unity_message_pb2 import UnityMessageProto  # noqa: E402

BEHAVIOR = "3DBall?team=0"
OBSERVATIONS, ACTIONS = 8, 2
PREPARED = 64  # different messages, sent in a circle


def play(port: int, agents: int) -> None:
    """Be the player: connect, send prepared messages until told to stop."""
    import grpc

    first, *others = prepared(agents)
    with grpc.insecure_channel(f"localhost:{port}") as channel:
        grpc.channel_ready_future(channel).result(timeout=60)
        call = channel.unary_unary("/communicator_objects.UnityToExternalProto/Exchange")
        call(hello())
        call(messages.EMPTY)
        reply, at = call(first), 0
        while reply != messages.STOP:
            reply, at = call(others[at]), (at + 1) % len(others)


def hello() -> bytes:
    """The first message of a player."""
    message = UnityMessageProto()
    message.header.status = messages.OK
    player = message.unity_output.rl_initialization_output
    player.name, player.communication_version, player.package_version = "AcademySingleton", "1.5.0", "3.0.0"
    player.capabilities.baseRLCapabilities = True
    data: bytes = message.SerializeToString()
    return data


def prepared(agents: int) -> Iterator[bytes]:
    """What the agents send: the behavior's announcement first, rewards of 0.1, now and then an episode's end."""
    rng = np.random.default_rng(0)
    for index in range(PREPARED):
        message = UnityMessageProto()
        message.header.status = messages.OK
        if index == 0:
            brain = message.unity_output.rl_initialization_output.brain_parameters.add(brain_name=BEHAVIOR)
            brain.action_spec.num_continuous_actions = ACTIONS
        infos = message.unity_output.rl_output.agentInfos[BEHAVIOR].value
        for agent in range(agents):
            for done in (True, False) if rng.random() < 0.01 and index else (False,):
                info = infos.add(id=agent, reward=-1.0 if done else 0.1, done=done)
                observation = info.observations.add(shape=[OBSERVATIONS], name="VectorSensor")
                observation.dimension_properties.append(1)
                observation.float_data.data.extend(rng.normal(size=OBSERVATIONS))
        yield message.SerializeToString()


def theirs(port: int) -> Any:
    """The environment of `mlagents_envs`."""
    from mlagents_envs.environment import UnityEnvironment

    return UnityEnvironment(None, base_port=port)


def ours(port: int) -> Any:
    """The environment of mlhooks."""
    from mlhooks.unity.environment import UnityPlayer

    return UnityPlayer(None, port=port)


def measure(kind: str, agents: int, seconds: float) -> tuple[float, float]:
    """Agent-steps per second of one environment, and per second of its own processor time."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    player = subprocess.Popen([sys.executable, __file__, "--play", str(port), "--agents", str(agents)])
    env = {"mlagents_envs": theirs, "mlhooks": ours}[kind](port)
    env.reset()
    spec = env.behavior_specs[BEHAVIOR].action_spec
    steps, elapsed, busy = 0, 0.0, 0.0
    for budget in (seconds / 5, seconds):  # the first is for warming up
        steps, started, busy = 0, time.perf_counter(), time.process_time()
        while (elapsed := time.perf_counter() - started) < budget:
            decisions, _ = env.get_steps(BEHAVIOR)
            env.set_actions(BEHAVIOR, spec.random_action(len(decisions)))
            env.step()
            steps += len(decisions)
        busy = time.process_time() - busy
    env.close()
    player.wait(10)
    return steps / elapsed, steps / busy


def main() -> None:
    """Measure in turns, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--play", type=int, metavar="PORT", help=argparse.SUPPRESS)
    parser.add_argument("--agents", type=int, nargs="+", default=[1, 12, 256])
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    if options.play:
        play(options.play, options.agents[0])
        return
    print("Agent-steps per second, and per second of processor time of the trainer's side; medians.")
    print("agents   mlagents_envs  mlhooks  ratio   mlagents_envs  mlhooks  ratio")
    for agents in options.agents:
        rates: dict[str, list[tuple[float, float]]] = {"mlagents_envs": [], "mlhooks": []}
        for _ in range(options.turns):
            for kind, found in rates.items():
                found.append(measure(kind, agents, options.seconds))
        line = f"{agents:6}"
        for which in (0, 1):
            old, new = (statistics.median(pair[which] for pair in found) for found in rates.values())
            line += f" {old:15,.0f} {new:8,.0f} {new / old:6.2f}"
        print(line, flush=True)


if __name__ == "__main__":
    main()
