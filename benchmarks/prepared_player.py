"""A player that costs next to nothing: it sends prepared bytes of 3DBall's shape, whatever it gets.

A trainer's side of the Unity protocol can be measured with it: `python benchmarks/prepared_player.py PORT --agents 12`
connects and goes on until it is told to stop. It is a gRPC client like that of a Unity build, on the same C library.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import grpc
import numpy as np

from mlhooks.unity import messages, schema

schema.install()

from mlagents_envs.communicator_objects.unity_message_pb2 import UnityMessageProto  # noqa: E402

BEHAVIOR = "3DBall?team=0"
OBSERVATIONS, ACTIONS = 8, 2
PREPARED = 64  # So many different messages are sent in a circle.


def play(port: int, agents: int) -> None:
    """Connect, and send prepared messages until told to stop."""
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
    """Return the first message of a player."""
    message = UnityMessageProto()
    message.header.status = messages.OK
    player = message.unity_output.rl_initialization_output
    player.name, player.communication_version, player.package_version = "AcademySingleton", "1.5.0", "3.0.0"
    player.capabilities.baseRLCapabilities = True
    data: bytes = message.SerializeToString()
    return data


def prepared(agents: int) -> Iterator[bytes]:
    """Yield what the agents send: the behavior's announcement first, rewards of 0.1, now and then an episode's end."""
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


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("port", type=int)
    parser.add_argument("--agents", type=int, default=12)
    arguments = parser.parse_args()
    try:
        play(arguments.port, arguments.agents)
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.UNAVAILABLE:  # `mlagents_envs` often ends it so.
            raise
