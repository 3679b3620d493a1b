"""A stand-in for a Unity player: it speaks the player's side of the ML-Agents protocol over simulations in Python.

`python -m mlhooks.sim_player NAME --mlagents-port P` starts one, as a trainer starts a build. It is the gRPC client;
the trainer is the server. It imports grpc, numpy and the messages of `mlagents_envs`, and nothing of mlhooks' training.
"""

from __future__ import annotations

from mlhooks.unity.schema import install

install()  # This comes before any module here imports the messages.
