"""What this machine can do at most in a workload of `speed.py`: its parts alone, without a training library.

- stepping: the environment with random actions, as mlhooks wraps it, as Gymnasium vectorizes it, and copy by copy.
- forward: the actor on one observation of each copy, by torch, by compiled torch, and by numpy.
- update: one step on one minibatch: the losses, their gradient, its norm, and fused Adam; by torch and compiled.
- update, channels last: that of images in this layout, by torch.
- update, matrix products: those of all layers' forward and backward passes by numpy and nothing else, which no library
  that computes such layers in float32 can do without.

Compiled parts are left out where there is no C++ compiler.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import lru_cache
from statistics import median
from time import perf_counter
from typing import Any

import gymnasium
import numpy as np
import torch
from adapter import layers, script
from gymnasium import spaces
from torch import Tensor, nn
from torch.distributions import Normal
from torch.nn import functional

from builtin_plugins.gymnasium_env import make
from mlhooks.settings import RunOptions

TURN, TURNS = 0.2, 5  # seconds
ALL_THREE = {"torch": "torch", "compiled": "compiled", "channels last": "torch", "matrix products": "numpy"}
"""Kinds of updates, and of the forward pass that goes with each."""


def seconds(call: Callable[[], Any]) -> float:
    """Return the seconds of one call, the median of some turns."""
    call()
    calls, started = 0, perf_counter()
    while perf_counter() - started < TURN:
        call()
        calls += 1
    turns = []
    for _ in range(TURNS):
        started = perf_counter()
        for _ in range(calls):
            call()
        turns.append((perf_counter() - started) / calls)
    return median(turns)


def stepping(settings: dict[str, Any]) -> dict[str, Callable[[], Any]]:
    """Return a step of all copies, in each of the ways that there are."""
    name, copies = settings["environment"], settings["environments"]
    wrapped = make(name, worker_id=0, seed=0, num_areas=copies, options=RunOptions())
    wrapped.reset()
    ((behavior, spec),) = wrapped.behavior_specs.items()
    random_action = lru_cache(spec.action_spec.random_action)  # It is called once for each number of agents.

    def ours() -> None:
        decisions, _ = wrapped.get_steps(behavior)
        wrapped.set_actions(behavior, random_action(len(decisions)))
        wrapped.step()

    calls: dict[str, Callable[[], Any]] = {"stepping, mlhooks' environment": ours}
    modes = {"vector_entry_point": "stepping, vectorized by Gymnasium", "sync": "stepping, copy by copy"}
    if gymnasium.spec(name.rpartition(":")[2]).vector_entry_point is None:
        del modes["vector_entry_point"]
    for mode, title in modes.items():
        envs = gymnasium.make_vec(name, copies, vectorization_mode=mode)
        envs.reset(seed=0)
        actions = envs.action_space.sample()
        calls[title] = lambda envs=envs, actions=actions: envs.step(actions)
    return calls


def forward(actor: nn.Sequential, rows: int, shape: tuple[int, ...]) -> dict[str, Callable[[], Any]]:
    """Return the actor on so many observations."""
    linear = [layer for layer in actor if isinstance(layer, nn.Linear)]
    arrays = [(layer.weight.detach().numpy().T.copy(), layer.bias.detach().numpy()) for layer in linear]
    activate = np.tanh if isinstance(actor[1], nn.Tanh) else lambda values: np.maximum(values, 0.0)
    obs = torch.randn(rows, *shape)
    compiled = torch.compile(actor)

    def by_numpy() -> np.ndarray:
        values = obs.numpy()
        for weight, bias in arrays[:-1]:
            values = activate(values @ weight + bias)
        return values @ arrays[-1][0] + arrays[-1][1]

    def by_torch(network: Callable[[Tensor], Tensor]) -> Callable[[], Tensor]:
        return torch.no_grad()(lambda: network(obs))

    calls: dict[str, Callable[[], Any]] = {
        "forward, torch": by_torch(actor),
        "forward, compiled": by_torch(compiled),
    }
    return calls | {"forward, numpy": by_numpy} if len(shape) == 1 else calls


class ActorCritic(nn.Module):
    """The losses of PPO and A2C on a minibatch."""

    def __init__(self, settings: dict[str, Any], actor: nn.Sequential, discrete: bool) -> None:
        super().__init__()
        self.settings, self.discrete = settings, discrete
        self.shared = actor[:-1] if settings.get("frames") else nn.Identity()
        self.actor = actor[-1:] if settings.get("frames") else actor
        critic = {**settings, "layers": []} if settings.get("frames") else settings
        self.critic = nn.Sequential(*layers(critic, self.actor[0].in_features, 1, 1.0))
        self.log_std = nn.Parameter(torch.zeros(actor[-1].out_features))

    def forward(self, obs: Tensor, action: Tensor, old: Tensor, advantages: Tensor, returns: Tensor) -> Tensor:
        """Return the loss; `obs` [rows, features], `action` [rows, 1], all others [rows]."""
        obs = self.shared(obs)
        outputs = self.actor(obs)
        if self.discrete:
            log_prob = torch.log_softmax(outputs, 1).gather(1, action).squeeze(1)
        else:
            log_prob = Normal(outputs, self.log_std.exp(), validate_args=False).log_prob(action).sum(1)
        value_loss = functional.mse_loss(self.critic(obs).squeeze(1), returns)
        if self.settings["algorithm"] == "a2c":
            return 0.5 * value_loss - (log_prob * advantages).mean()
        ratio, clip = torch.exp(log_prob - old), self.settings["clip"]
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        kept = torch.min(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)
        return 0.5 * value_loss - kept.mean()


class Values(nn.Module):
    """The loss of DQN on a minibatch."""

    def __init__(self, settings: dict[str, Any], network: nn.Sequential) -> None:
        super().__init__()
        self.gamma, self.network = settings["gamma"], network
        self.target = copy.deepcopy(network).requires_grad_(False)

    def forward(self, obs: Tensor, action: Tensor, reward: Tensor, goes_on: Tensor, following: Tensor) -> Tensor:
        """Return the loss; `obs`, `following` [rows, features], `action` [rows, 1], all others [rows]."""
        goal = reward + self.gamma * goes_on * self.target(following).amax(1)
        return functional.smooth_l1_loss(self.network(obs).gather(1, action).squeeze(1), goal)


class SoftActorCritic(nn.Module):
    """The losses of SAC with twin targets on a minibatch, in one sum."""

    def __init__(self, settings: dict[str, Any], actor: nn.Sequential, inputs: int, actions: int) -> None:
        super().__init__()
        self.gamma, self.actor, self.actions = settings["gamma"], actor, actions
        self.critics = nn.ModuleList(nn.Sequential(*layers(settings, inputs + actions, 1)) for _ in range(2))
        self.targets = copy.deepcopy(self.critics).requires_grad_(False)
        self.log_weight = nn.Parameter(torch.zeros(()))

    def decide(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Draw actions [rows, actions] and their log-probabilities [rows, 1]."""
        mean, log_std = self.actor(obs).split(self.actions, 1)
        log_std = log_std.clamp(-20, 2)
        noise = torch.randn_like(mean)
        x = mean + log_std.exp() * noise
        slope = 2.0 * (math.log(2.0) - x - functional.softplus(-2.0 * x))
        log_prob = -0.5 * noise.square() - log_std - 0.5 * math.log(2.0 * math.pi) - slope
        return torch.tanh(x), log_prob.sum(1, keepdim=True)

    def least(self, critics: nn.ModuleList, obs: Tensor, action: Tensor) -> Tensor:
        """Return the lower of both critics' values [rows, 1]."""
        return torch.min(*(critic(torch.cat([obs, action], 1)) for critic in critics))

    def forward(self, obs: Tensor, action: Tensor, reward: Tensor, goes_on: Tensor, following: Tensor) -> Tensor:
        """Return the loss; `obs`, `following` [rows, features], `action` [rows, actions], all others [rows]."""
        weight = self.log_weight.detach().exp()
        with torch.no_grad():
            then, log_prob = self.decide(following)
            value = self.least(self.targets, following, then) - weight * log_prob
            goal = reward.unsqueeze(1) + self.gamma * goes_on.unsqueeze(1) * value
        now, log_prob = self.decide(obs)
        errors = [functional.mse_loss(critic(torch.cat([obs, action], 1)), goal) for critic in self.critics]
        for parameter in self.critics.parameters():
            parameter.requires_grad_(False)
        cost = (weight * log_prob - self.least(self.critics, obs, now)).mean()
        for parameter in self.critics.parameters():
            parameter.requires_grad_(True)
        lacking = (log_prob.detach() - self.actions).mean()
        return cost + 0.5 * (errors[0] + errors[1]) - self.log_weight * lacking

    def passes(self) -> list[tuple[nn.Module, bool, bool]]:
        """Return for each pass the network, whether it learns, and whether the gradient of its inputs is wanted."""
        acting = [(self.actor, True, False), (self.actor, False, False)]
        judging = [(critic, learns, not learns) for critic in self.critics for learns in (True, False)]
        return [*acting, *judging, *((target, False, False) for target in self.targets)]


def update(settings: dict[str, Any], loss: nn.Module, batch: list[Tensor]) -> dict[str, Callable[[], Any]]:
    """Return a step on one minibatch."""
    parameters = [parameter for parameter in loss.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=settings["learning_rate"], fused=True)

    def step(loss: Callable[..., Tensor]) -> Callable[[], None]:
        def call() -> None:
            optimizer.zero_grad()
            loss(*batch).backward()
            if settings["max_grad_norm"] is not None:
                nn.utils.clip_grad_norm_(parameters, settings["max_grad_norm"])
            optimizer.step()

        return call

    return {"update, torch": step(loss), "update, compiled": step(torch.compile(loss))}


def channels_last(settings: dict[str, Any], loss: nn.Module, batch: list[Tensor]) -> dict[str, Callable[[], Any]]:
    """Return a step on a minibatch of images whose channels are last in memory."""
    copied = copy.deepcopy(loss).to(memory_format=torch.channels_last)
    obs = batch[0].contiguous(memory_format=torch.channels_last)
    return {"update, channels last": update(settings, copied, [obs, *batch[1:]])["update, torch"]}


def products(loss: nn.Module, rows: int) -> dict[str, Callable[[], Any]]:
    """Return the matrix products of a step on a minibatch: of each layer's results, weights' and inputs' gradients."""
    factors = []
    made = loss.passes() if isinstance(loss, SoftActorCritic) else [(loss, None, False)]
    for network, learning, passes_on in made:
        for number, parameter in enumerate(p for p in network.parameters() if p.ndim == 2):
            weight = parameter.detach().numpy()
            outputs, inputs = (np.random.default_rng(0).random((rows, size), np.float32) for size in weight.shape)
            learns = parameter.requires_grad if learning is None else learning
            factors.append((inputs, weight, outputs, learns, passes_on or (learns and number > 0)))
    if len(made) == 1:  # Several networks read the features, and nobody asks for their gradient.
        features = factors[0][0].shape[1]
        factors = [(*factor[:4], factor[3] and factor[0].shape[1] != features) for factor in factors]

    def call() -> None:
        for inputs, weight, outputs, learns, passes_on in factors:
            np.dot(inputs, weight.T)
            if learns:
                np.dot(outputs.T, inputs)
            if passes_on:
                np.dot(outputs, weight)

    return {"update, matrix products": call}


def network(settings: dict[str, Any], inputs: int, outputs: int) -> list[nn.Module]:
    """Return the actor: layers, behind a Nature CNN where it sees frames."""
    if not settings.get("frames"):
        return layers(settings, inputs, outputs, 0.01)
    sizes = [(inputs, 32, 8, 4), (32, 64, 4, 2), (64, 64, 3, 1)]
    convolutions = [part for size in sizes for part in (nn.Conv2d(*size), nn.ReLU(inplace=True))]
    dense = [nn.Flatten(), nn.Linear(3136, 512), nn.ReLU(inplace=True)]
    return [*convolutions, *dense, *layers(settings, 512, outputs, 0.01)]


def train(settings: dict[str, Any]) -> dict[str, Any]:
    """Measure and report the seconds of each part, and for how many environment steps they last."""
    env, rows, copies = gymnasium.make(settings["environment"]), settings["batch_size"], settings["environments"]
    inputs, discrete = env.observation_space.shape, isinstance(env.action_space, spaces.Discrete)
    outputs = int(env.action_space.n) if discrete else env.action_space.shape[0]
    heads = 2 if settings["algorithm"] == "sac" else 1  # SAC has deviations beside means.
    actor = nn.Sequential(*network(settings, inputs[0], heads * outputs))
    action = torch.randint(outputs, (rows, 1)) if discrete else torch.randn(rows, outputs)
    batch = [torch.randn(rows, *inputs), action, torch.randn(rows), torch.randn(rows)]
    if settings["algorithm"] == "dqn":
        loss: nn.Module = Values(settings, actor)
        batch.append(torch.randn(rows, *inputs))
        each = settings["steps_per_update"]
    elif settings["algorithm"] == "sac":
        loss = SoftActorCritic(settings, actor, inputs[0], outputs)
        batch.append(torch.randn(rows, *inputs))
        each = settings["steps_per_update"]
    else:
        loss = ActorCritic(settings, actor, discrete)
        batch.append(torch.randn(rows))
        each = rows / settings["epochs"]
    parts: dict[str, dict[str, float]] = {}
    acting = stepping(settings) | forward(actor, copies, inputs)
    least = channels_last(settings, loss, batch) if settings.get("frames") else products(loss, rows)
    for name, call in (acting | update(settings, loss, batch) | least).items():
        try:
            parts[name] = {"seconds": seconds(call), "steps": copies if name in acting else each}
        except torch._dynamo.exc.BackendCompilerFailed as error:
            print(f"{name}: {error}")
    for kind, first in ALL_THREE.items():
        names = ["stepping, mlhooks' environment", f"forward, {first}", f"update, {kind}"]
        if all(name in parts for name in names):
            each_step = sum(parts[name]["seconds"] / parts[name]["steps"] for name in names)
            parts[f"all three, {kind}"] = {"seconds": each_step, "steps": 1}
    return {"parts": parts}


if __name__ == "__main__":
    script(train, "mlhooks")
