"""The work that `speed.py` measures, in words that the peers' scripts translate into their own."""

from __future__ import annotations

from typing import Any

Work = dict[str, Any]

WITHOUT_MLAGENTS = ["mlhooks", "stable-baselines3", "cleanrl", "tianshou", "torchrl", "skrl", "limits"]
"""Who takes part where ML-Agents lacks the algorithm, or the environment's vectorized implementation is the point."""

PPO: Work = {
    "algorithm": "ppo",
    "environment": "CartPole-v1",
    "environments": 8,
    "vectorized": False,  # A peer that can then takes the environment's own vectorized implementation.
    "layers": [64, 64],
    "activation": "tanh",
    "steps": 100_000,
    "rollout": 128,
    "epochs": 4,
    "batch_size": 256,
    "learning_rate": 3e-4,
    "decay": False,  # Learning rate and clip range then fall linearly to 0.
    "gamma": 0.99,
    "lambda": 0.95,
    "clip": 0.2,
    "entropy": 0.0,
    "max_grad_norm": 0.5,
}
SAC: Work = {
    "algorithm": "sac",
    "peers": ["mlhooks", "stable-baselines3", "sbx", "limits"],
    "environment": "Pendulum-v1",
    "environments": 1,
    "vectorized": False,
    "layers": [64, 64],
    "activation": "relu",
    "steps": 5_000,
    "warm_up_steps": 500,
    "batch_size": 256,
    "buffer_size": 20_000,
    "learning_starts": 100,
    "steps_per_update": 1,
    "tau": 0.005,
    "learning_rate": 1e-3,
    "decay": False,
    "gamma": 0.99,
    "max_grad_norm": None,
}
ATARI: Work = {
    "peers": ["mlhooks", "stable-baselines3"],
    "environment": "PongNoFrameskip-v4",
    "atari": True,  # The usual preprocessing, as each peer has it.
    "vectorized": False,
    "frames": True,  # As in `ppo_nature_cnn`.
    "layers": [512],
    "activation": "relu",
    "steps": 20_000,  # They are decisions, with four frames of the game each.
    "warm_up_steps": 2_048,
    "decay": False,
    "gamma": 0.99,
}
WORKLOADS: dict[str, Work] = {
    "ppo_cartpole": PPO,
    "ppo_cartpole_64": PPO | {"environments": 64, "rollout": 32, "batch_size": 512, "steps": 200_000},
    "ppo_cartpole_1024": PPO
    | {
        "environments": 1024,
        "peers": WITHOUT_MLAGENTS,
        "vectorized": True,
        "rollout": 32,
        "batch_size": 8192,
        "learning_rate": 1e-3,
        "steps": 1_000_000,
    },
    "ppo_pendulum": PPO | {"environment": "Pendulum-v1", "epochs": 10, "learning_rate": 1e-3, "gamma": 0.9},
    "a2c_cartpole": PPO
    | {
        "algorithm": "a2c",
        "peers": WITHOUT_MLAGENTS,
        "rollout": 5,
        "epochs": 1,
        "batch_size": 40,
        "learning_rate": 7e-4,
        "lambda": 1.0,
    },
    "dqn_cartpole": {
        "algorithm": "dqn",
        "peers": WITHOUT_MLAGENTS,
        "environment": "CartPole-v1",
        "environments": 1,
        "vectorized": False,
        "layers": [120, 84],
        "activation": "relu",
        "steps": 50_000,
        "batch_size": 64,
        "buffer_size": 10_000,
        "learning_starts": 1_000,
        "steps_per_update": 4,
        "target_update_interval": 500,
        "exploration_steps": 25_000,
        "final_epsilon": 0.05,
        "learning_rate": 2.5e-4,
        "decay": False,
        "gamma": 0.99,
        "max_grad_norm": 10.0,
    },
    "ppo_recurrent": PPO
    | {
        "peers": ["mlhooks", "sb3-contrib"],
        "environment": "positions:CartPolePositions-v0",
        "layers": [64],  # They are before the memory in mlhooks, and behind it in SB3-Contrib.
        "memory_units": 64,
        "sequence": 64,
        "steps": 50_000,
        "learning_rate": 1e-3,
    },
    "sac_pendulum": SAC,
    "sac_pendulum_256": SAC | {"layers": [256, 256]},
    "ppo_nature_cnn": PPO
    | {
        "environment": "frames:Frames-v0",
        "frames": True,  # The layers are behind a Nature CNN of 512 units, and actor and critic share all of it.
        "layers": [512],
        "activation": "relu",
        "steps": 6_144,
        "learning_rate": 2.5e-4,
        "peers": ["mlhooks", "stable-baselines3", "limits"],
    },
    # RL Baselines3 Zoo's settings for Atari games, with a layer more, as the two libraries count them differently
    "ppo_pong": ATARI
    | {
        "algorithm": "ppo",
        "environments": 8,
        "rollout": 128,
        "epochs": 4,
        "batch_size": 256,
        "learning_rate": 2.5e-4,
        "lambda": 0.95,
        "clip": 0.1,
        "entropy": 0.01,
        "max_grad_norm": 0.5,
    },
    "dqn_pong": ATARI
    | {
        "algorithm": "dqn",
        "environments": 1,
        "batch_size": 32,
        "buffer_size": 20_000,
        "learning_starts": 1_000,
        "steps_per_update": 4,
        "target_update_interval": 1_000,
        "exploration_steps": 10_000,
        "final_epsilon": 0.01,
        "learning_rate": 1e-4,
        "max_grad_norm": 10.0,
    },
    # RL Baselines3 Zoo's settings for PPO on CartPole-v1, until the mean of the last 100 training episodes is 475
    "time_to_475": PPO
    | {
        "rollout": 32,
        "epochs": 20,
        "learning_rate": 1e-3,
        "decay": True,
        "gamma": 0.98,
        "lambda": 0.8,
        "stop_at": 475.0,
    },
}
TUNED: dict[str, dict[str, Work]] = {
    "time_to_475": {
        "mlhooks": {"config": "cartpole_475.yaml"},
        # These are the settings of CleanRL's ppo.py.
        "cleanrl": {
            "environments": 4,
            "rollout": 128,
            "epochs": 4,
            "batch_size": 128,
            "learning_rate": 2.5e-4,
            "gamma": 0.99,
            "lambda": 0.95,
            "entropy": 0.01,
            "value_clipping": True,
            "value_weight": 0.25,
            "steps": 500_000,
        },
        # These are the settings of Tianshou's test/discrete/test_ppo_discrete.py.
        "tianshou": {
            "environments": 20,
            "activation": "relu",
            "rollout": 100,
            "epochs": 10,
            "batch_size": 64,
            "learning_rate": 3e-4,
            "decay": False,
            "gamma": 0.99,
            "lambda": 0.95,
            "normalize_advantages": False,
            "steps": 500_000,
        },
    }
}
"""What a peer changes in a workload, by workload and peer: its own tuned settings, where it publishes some."""
