"""Settings of RL Baselines3 Zoo as people know them, one line for each of its entries of environments that install.

A line has what an entry says beside the defaults of Stable-Baselines3. Versions of environments are those of Gymnasium.
"""

from __future__ import annotations

from typing import Any

RELU_256 = "activation_fn=nn.ReLU, net_arch=dict(pi=[256, 256], vf=[256, 256])"
MUJOCO = f"dict(log_std_init=-2, ortho_init=False, {RELU_256})"
SDE = {"use_sde": True, "policy_kwargs": "dict(log_std_init=-2, ortho_init=False)"}
GAMES = {
    "policy": "CnnPolicy",
    "frame_stack": 4,
    "env_wrapper": ["stable_baselines3.common.atari_wrappers.AtariWrapper"],
    "n_timesteps": 1e7,
}
FROM_PIXELS = {
    "policy": "CnnPolicy",
    "frame_stack": 2,
    "normalize": "{'norm_obs': False, 'norm_reward': True}",
    "env_wrapper": [
        {"rl_zoo3.wrappers.FrameSkip": {"skip": 2}},
        {"gymnasium.wrappers.resize_observation.ResizeObservation": {"shape": 64}},
        {"gymnasium.wrappers.gray_scale_observation.GrayScaleObservation": {"keep_dim": True}},
    ],
}


def ppo(
    steps: float, envs: int = 1, rollout: int = 2048, batch: int = 64, epochs: int = 10, **more: Any
) -> dict[str, Any]:
    numbers = {"n_timesteps": steps, "n_envs": envs, "n_steps": rollout, "batch_size": batch, "n_epochs": epochs}
    return {"policy": "MlpPolicy", **numbers, **more}


def mujoco(
    rate: float, entropy: float, clip: float, epochs: int, lam: float, norm: float, vf: float, **more: Any
) -> Any:
    return ppo(
        more.pop("steps", 1e6),
        normalize=True,
        epochs=epochs,
        learning_rate=rate,
        ent_coef=entropy,
        clip_range=clip,
        gae_lambda=lam,
        max_grad_norm=norm,
        vf_coef=vf,
        **{"rollout": 512, **more},
    )


PPO: dict[str, dict[str, Any]] = {
    "atari": {
        **GAMES,
        "n_envs": 8,
        "n_steps": 128,
        "n_epochs": 4,
        "batch_size": 256,
        "learning_rate": "lin_2.5e-4",
        "clip_range": "lin_0.1",
        "vf_coef": 0.5,
        "ent_coef": 0.01,
    },
    "Pendulum-v1": ppo(1e5, 4, 1024, gamma=0.9, learning_rate=1e-3, use_sde=True, sde_sample_freq=4),
    "CartPole-v1": ppo(
        1e5, 8, 32, 256, 20, gae_lambda=0.8, gamma=0.98, learning_rate="lin_0.001", clip_range="lin_0.2"
    ),
    "MountainCar-v0": ppo(1e6, 16, 16, epochs=4, normalize=True, gae_lambda=0.98),
    "MountainCarContinuous-v0": ppo(
        20000,
        rollout=8,
        batch=256,
        normalize=True,
        gamma=0.9999,
        learning_rate=7.77e-05,
        ent_coef=0.00429,
        clip_range=0.1,
        gae_lambda=0.9,
        max_grad_norm=5,
        vf_coef=0.19,
        use_sde=True,
        policy_kwargs="dict(log_std_init=-3.29, ortho_init=False)",
    ),
    "Acrobot-v1": ppo(1e6, 16, 256, epochs=4, normalize=True, gae_lambda=0.94),
    "BipedalWalker-v3": ppo(5e6, 32, normalize=True, gamma=0.999, learning_rate=3e-4, clip_range=0.18),
    "BipedalWalkerHardcore-v3": ppo(
        1e8, 16, normalize=True, ent_coef=0.001, learning_rate="lin_2.5e-4", clip_range="lin_0.2"
    ),
    "LunarLander-v3": ppo(1e6, 16, 1024, epochs=4, gae_lambda=0.98, gamma=0.999, ent_coef=0.01),
    "LunarLanderContinuous-v3": ppo(1e6, 16, 1024, epochs=4, gae_lambda=0.98, gamma=0.999, ent_coef=0.01),
    "CarRacing-v3": {
        **FROM_PIXELS,
        **ppo(4e6, 8, 512, 128, learning_rate="lin_1e-4", use_sde=True, sde_sample_freq=4, policy="CnnPolicy"),
        "policy_kwargs": "dict(log_std_init=-2, ortho_init=False, activation_fn=nn.GELU, "
        "net_arch=dict(pi=[256], vf=[256]))",
    },
    "Ant-v4": {"normalize": True, "n_timesteps": 1e6, "policy": "MlpPolicy"},
    "Swimmer-v4": {"normalize": True, "n_timesteps": 1e6, "policy": "MlpPolicy", "gamma": 0.9999},
    "HalfCheetah-v4": mujoco(2.0633e-05, 0.000401762, 0.1, 20, 0.92, 0.8, 0.58096, gamma=0.98, policy_kwargs=MUJOCO),
    "Hopper-v4": mujoco(
        9.80828e-05, 0.00229519, 0.2, 5, 0.99, 0.7, 0.835671, batch=32, gamma=0.999, policy_kwargs=MUJOCO
    ),
    "HumanoidStandup-v4": mujoco(
        2.55673e-05, 3.62109e-06, 0.3, 20, 0.9, 0.7, 0.430793, steps=1e7, batch=32, policy_kwargs=MUJOCO
    ),
    "Humanoid-v4": mujoco(
        3.56987e-05, 0.00238306, 0.3, 5, 0.9, 2, 0.431892, steps=1e7, batch=256, gamma=0.95, policy_kwargs=MUJOCO
    ),
    "InvertedDoublePendulum-v4": mujoco(
        0.000155454, 1.05057e-06, 0.4, 10, 0.8, 0.5, 0.695929, rollout=128, batch=512, gamma=0.98
    ),
    "InvertedPendulum-v4": mujoco(0.000222425, 1.37976e-07, 0.4, 5, 0.9, 0.3, 0.19816, rollout=32, gamma=0.999),
    "Reacher-v4": mujoco(0.000104019, 7.52585e-08, 0.3, 5, 1.0, 0.9, 0.950368, batch=32, gamma=0.9),
    "Walker2d-v4": mujoco(5.05041e-05, 0.000585045, 0.1, 20, 0.95, 1, 0.871923, batch=32),
}


def a2c(steps: float, envs: int, **more: Any) -> dict[str, Any]:
    return {"policy": "MlpPolicy", "n_timesteps": steps, "n_envs": envs, "ent_coef": 0.0, **more}


def tuned(steps: float, envs: int, rate: str, **more: Any) -> dict[str, Any]:
    return a2c(
        steps,
        envs,
        normalize=True,
        max_grad_norm=0.5,
        n_steps=8,
        gae_lambda=0.9,
        vf_coef=0.4,
        gamma=0.99,
        **{"use_rms_prop": True, "normalize_advantage": False, "learning_rate": rate, **SDE, **more},
    )


A2C: dict[str, dict[str, Any]] = {
    "atari": {
        **GAMES,
        "n_envs": 16,
        "ent_coef": 0.01,
        "vf_coef": 0.25,
        "policy_kwargs": "dict(optimizer_class=RMSpropTFLike, optimizer_kwargs=dict(eps=1e-5))",
    },
    "CartPole-v1": a2c(5e5, 8),
    "LunarLander-v3": a2c(2e5, 8, gamma=0.995, n_steps=5, learning_rate="lin_0.00083", ent_coef=0.00001),
    "MountainCar-v0": a2c(1e6, 16, normalize=True),
    "Acrobot-v1": a2c(5e5, 16, normalize=True),
    "Pendulum-v1": tuned(1e6, 8, "lin_7e-4"),
    "LunarLanderContinuous-v3": tuned(5e6, 4, "lin_7e-4"),
    "MountainCarContinuous-v0": a2c(
        1e5,
        4,
        normalize=True,
        n_steps=100,
        use_sde=True,
        sde_sample_freq=16,
        policy_kwargs="dict(log_std_init=0.0, ortho_init=False)",
    ),
    "BipedalWalker-v3": tuned(5e6, 16, "lin_0.00096"),
    "BipedalWalkerHardcore-v3": tuned(20e7, 32, "lin_0.0008", ent_coef=0.001),
    **{f"{name}-v4": {"normalize": True, "n_timesteps": 1e6, "policy": "MlpPolicy"} for name in ("Ant", "Hopper")},
}


def dqn(steps: float, rate: float, batch: int, rows: int, starts: int, **more: Any) -> dict[str, Any]:
    numbers = {"n_timesteps": steps, "learning_rate": rate, "batch_size": batch, "buffer_size": rows}
    return {"policy": "MlpPolicy", **numbers, "learning_starts": starts, **more}


def every(train_freq: int, updates: int, interval: int, fraction: float, final: float) -> dict[str, Any]:
    return {
        "train_freq": train_freq,
        "gradient_steps": updates,
        "target_update_interval": interval,
        "exploration_fraction": fraction,
        "exploration_final_eps": final,
    }


WIDE = {"policy_kwargs": "dict(net_arch=[256, 256])"}
DQN: dict[str, dict[str, Any]] = {
    "atari": {**dqn(1e7, 1e-4, 32, 100_000, 100_000), **every(4, 1, 1000, 0.1, 0.01), **GAMES},
    "CartPole-v1": dqn(5e4, 2.3e-3, 64, 100_000, 1000, **every(256, 128, 10, 0.16, 0.04), **WIDE),
    "MountainCar-v0": dqn(1.2e5, 4e-3, 128, 10_000, 1000, gamma=0.98, **every(16, 8, 600, 0.2, 0.07), **WIDE),
    "LunarLander-v3": dqn(1e5, 6.3e-4, 128, 50_000, 0, gamma=0.99, **every(4, -1, 250, 0.12, 0.1), **WIDE),
    "Acrobot-v1": dqn(1e5, 6.3e-4, 128, 50_000, 0, gamma=0.99, **every(4, -1, 250, 0.12, 0.1), **WIDE),
}
SAC: dict[str, dict[str, Any]] = {
    "MountainCarContinuous-v0": {
        "policy": "MlpPolicy",
        "n_timesteps": 50000.0,
        "learning_rate": 3e-4,
        "buffer_size": 50000,
        "batch_size": 512,
        "ent_coef": 0.1,
        "train_freq": 32,
        "gradient_steps": 32,
        "gamma": 0.9999,
        "tau": 0.01,
        "learning_starts": 0,
        "use_sde": True,
        "policy_kwargs": "dict(log_std_init=-3.67, net_arch=[64, 64])",
    },
    "Pendulum-v1": {"policy": "MlpPolicy", "n_timesteps": 20000, "learning_rate": 1e-3},
    "BipedalWalker-v3": {
        "policy": "MlpPolicy",
        "n_timesteps": 5e5,
        "learning_rate": 7.3e-4,
        "buffer_size": 300000,
        "batch_size": 256,
        "ent_coef": "auto",
        "gamma": 0.98,
        "tau": 0.02,
        "train_freq": 64,
        "gradient_steps": 64,
        "learning_starts": 10000,
        "use_sde": True,
        "policy_kwargs": "dict(log_std_init=-3, net_arch=[400, 300])",
    },
    "LunarLanderContinuous-v3": {
        "policy": "MlpPolicy",
        "n_timesteps": 5e5,
        "learning_rate": "lin_7.3e-4",
        "buffer_size": 1000000,
        "batch_size": 256,
        "ent_coef": "auto",
        "gamma": 0.99,
        "tau": 0.01,
        "train_freq": 1,
        "gradient_steps": 1,
        "learning_starts": 10000,
        "policy_kwargs": "dict(net_arch=[400, 300])",
    },
    "HalfCheetah-v4": {"policy": "MlpPolicy", "n_timesteps": 1e6, "learning_starts": 10000},
}
FILES = {"ppo": PPO, "a2c": A2C, "dqn": DQN, "sac": SAC}
