"""One run of CleanRL's loop for `speed.py`: its structure and defaults, written again, because it is no library.

As its single-file scripts do it: a Gymnasium vector environment, tensors written at each step, `torch.distributions`,
one Adam on everything, minibatches by shuffled indices; for DQN a numpy replay buffer and a copied target network. A2C
is PPO with one epoch over one minibatch whose advantages are not normalized (Huang et al. 2022,
https://arxiv.org/abs/2205.09123).
"""

from __future__ import annotations

import copy
from time import perf_counter
from typing import Any

import numpy as np
import torch
from adapter import Returns, finished, layers, rounds, script, vector_environment
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Normal
from torch.nn import functional


class Agent(nn.Module):
    """Separate actor and critic."""

    def __init__(self, settings: dict[str, Any], envs: VectorEnv[Any, Any]) -> None:
        super().__init__()
        inputs, space = envs.single_observation_space.shape[0], envs.single_action_space
        self.continuous = isinstance(space, spaces.Box)
        outputs = space.shape[0] if self.continuous else space.n
        self.critic = nn.Sequential(*layers(settings, inputs, 1, 1.0))
        self.actor = nn.Sequential(*layers(settings, inputs, outputs, 0.01))
        self.log_std = nn.Parameter(torch.zeros(outputs)) if self.continuous else None

    def distribution(self, obs: Tensor) -> Distribution:
        """Return the distribution of the actions."""
        if self.log_std is None:
            return Categorical(logits=self.actor(obs))
        mean = self.actor(obs)
        return Normal(mean, torch.exp(self.log_std.expand_as(mean)))

    def forward(self, obs: Tensor, action: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the action, its log-probability, the entropy, and the value."""
        distribution = self.distribution(obs)
        if action is None:
            action = distribution.sample()
        log_prob, entropy = distribution.log_prob(action), distribution.entropy()
        if self.continuous:
            log_prob, entropy = log_prob.sum(1), entropy.sum(1)
        return action, log_prob, entropy, self.critic(obs).flatten()


def on_policy(settings: dict[str, Any], envs: VectorEnv[Any, Any], returns: Returns) -> int:
    """Train by PPO or A2C, and return the number of steps."""
    agent = Agent(settings, envs)
    optimizer = torch.optim.Adam(agent.parameters(), lr=settings["learning_rate"], eps=1e-5)
    length, copies = settings["rollout"], envs.num_envs
    obs = torch.zeros((length, copies, *envs.single_observation_space.shape))
    actions = torch.zeros((length, copies, *envs.single_action_space.shape))
    log_probs, rewards, dones, values = (torch.zeros((length, copies)) for _ in range(4))
    first, _ = envs.reset(seed=settings["seed"])
    next_obs, next_done = torch.Tensor(first), torch.zeros(copies)
    total = rounds(settings)
    for number in range(total):
        if settings["decay"]:
            optimizer.param_groups[0]["lr"] = settings["learning_rate"] * (1.0 - number / total)
        for step in range(length):
            obs[step], dones[step] = next_obs, next_done
            with torch.no_grad():
                action, log_probs[step], _, values[step] = agent(next_obs)
            actions[step] = action
            seen, reward, terminated, truncated, infos = envs.step(action.numpy())
            rewards[step] = torch.tensor(reward)
            next_obs, next_done = torch.Tensor(seen), torch.Tensor(terminated | truncated)
            returns.add(finished(infos))
        with torch.no_grad():
            last = agent.critic(next_obs).flatten()
        advantages = estimate(settings, rewards, torch.cat([values, last[None]]), torch.cat([dones, next_done[None]]))
        rollout = [part.flatten(0, 1) for part in (obs, actions, log_probs, advantages, advantages + values, values)]
        learn(settings, agent, optimizer, rollout)
        if returns.reached:
            break
    return (number + 1) * length * copies


def estimate(settings: dict[str, Any], rewards: Tensor, values: Tensor, dones: Tensor) -> Tensor:
    """Return generalized advantages; `values` and `dones` have one row more than `rewards` [rollout, environments]."""
    advantages, following = torch.zeros_like(rewards), torch.zeros(rewards.shape[1])
    for step in reversed(range(len(rewards))):
        goes_on = 1.0 - dones[step + 1]
        delta = rewards[step] + settings["gamma"] * values[step + 1] * goes_on - values[step]
        advantages[step] = following = delta + settings["gamma"] * settings["lambda"] * goes_on * following
    return advantages


def learn(settings: dict[str, Any], agent: Agent, optimizer: torch.optim.Optimizer, rollout: list[Tensor]) -> None:
    """Learn in epochs of minibatches over the rollout."""
    indices, clip = np.arange(len(rollout[0])), settings["clip"]
    for _ in range(settings["epochs"]):
        np.random.shuffle(indices)  # noqa: NPY002 - CleanRL does so.
        for start in range(0, len(indices), settings["batch_size"]):
            chosen = indices[start : start + settings["batch_size"]]
            obs, action, old_log_prob, advantage, target, old_value = (part[chosen] for part in rollout)
            _, log_prob, entropy, value = agent(obs, action)
            ratio = (log_prob - old_log_prob).exp()
            if settings["algorithm"] == "ppo":
                advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
            policy_loss = torch.max(-advantage * ratio, -advantage * ratio.clamp(1 - clip, 1 + clip)).mean()
            error = (value - target) ** 2
            if settings["value_clipping"]:
                near = old_value + (value - old_value).clamp(-clip, clip)
                error = torch.max(error, (near - target) ** 2)
            value_loss = error.mean()
            loss = policy_loss - settings["entropy"] * entropy.mean() + settings["value_weight"] * value_loss
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(agent.parameters(), settings["max_grad_norm"])
            optimizer.step()


def dqn(settings: dict[str, Any], envs: VectorEnv[Any, Any], returns: Returns) -> int:
    """Train by deep Q-learning, and return the number of steps."""
    inputs, actions = envs.single_observation_space.shape[0], int(envs.single_action_space.n)
    network = nn.Sequential(*layers(settings, inputs, actions))
    target = copy.deepcopy(network)
    optimizer = torch.optim.Adam(network.parameters(), lr=settings["learning_rate"])
    size = settings["buffer_size"]
    buffer = [np.zeros((size, inputs), np.float32) for _ in range(2)]  # These hold observations, and the next ones.
    # These hold action, reward and done.
    buffer += [np.zeros((size, 1), kind) for kind in (np.int64, np.float32, np.float32)]
    rng = np.random.default_rng(settings["seed"])
    obs, _ = envs.reset(seed=settings["seed"])
    for step in range(settings["steps"]):
        share = min(step / settings["exploration_steps"], 1.0)
        if rng.random() < 1.0 + share * (settings["final_epsilon"] - 1.0):
            action = np.array([envs.single_action_space.sample()])
        else:
            action = network(torch.Tensor(obs)).argmax(1).numpy()
        seen, reward, terminated, truncated, infos = envs.step(action)
        following = seen.copy()
        if truncated[0] or terminated[0]:
            following[0] = infos["final_obs"][0]
        for part, value in zip(buffer, (obs[0], following[0], action, reward, terminated), strict=True):
            part[step % size] = value
        obs = seen
        returns.add(finished(infos))
        if step > settings["learning_starts"] and step % settings["steps_per_update"] == 0:
            chosen = rng.integers(0, min(step + 1, size), settings["batch_size"])
            now, later, taken, gain, ended = (torch.from_numpy(part[chosen]) for part in buffer)
            with torch.no_grad():
                goal = gain.flatten() + settings["gamma"] * target(later).amax(1) * (1 - ended.flatten())
            loss = functional.mse_loss(goal, network(now).gather(1, taken).squeeze(1))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if step % settings["target_update_interval"] == 0:
            target.load_state_dict(network.state_dict())
    return int(settings["steps"])


def train(settings: dict[str, Any]) -> dict[str, Any]:
    """Train and report."""
    settings = {"value_clipping": False, "value_weight": 0.5} | settings
    np.random.seed(settings["seed"])  # noqa: NPY002 - CleanRL does so.
    torch.manual_seed(settings["seed"])
    envs, returns = vector_environment(settings), Returns(settings)
    started = perf_counter()
    steps = (dqn if settings["algorithm"] == "dqn" else on_policy)(settings, envs, returns)
    return {"steps": steps, "loop_seconds": perf_counter() - started, "mean_return": returns.mean}


if __name__ == "__main__":
    script(train)
