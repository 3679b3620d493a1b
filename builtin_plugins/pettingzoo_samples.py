"""Two small environments, one of each of PettingZoo's interfaces, with which its environment kind is checked."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from pettingzoo import AECEnv, ParallelEnv

PLACES = 9


class Hunt(ParallelEnv):  # type: ignore[misc]  # PettingZoo ships no types.
    """Hounds and a hare on a line: a hound that reaches the hare wins, and one that runs off the line is out.

    The hare is of other spaces than the hounds, and sits still or jumps. An episode is cut after 20 steps.
    """

    metadata = {"name": "hunt_v0"}  # noqa: RUF012  (the interface has it so)

    def __init__(self, hounds: int = 2, limit: int = 20) -> None:
        self.limit = limit
        self.possible_agents = [*(f"hound_{number}" for number in range(hounds)), "hare"]
        self.render_mode = None
        self.rng = np.random.default_rng()

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        """Places of the agent and the hare; the hare sees where it is and when."""
        return spaces.MultiDiscrete([PLACES, 40]) if agent == "hare" else spaces.Box(0.0, PLACES, (2,), np.float32)

    def action_space(self, agent: str) -> spaces.Space[Any]:
        """Left, stay, right for a hound; how far the hare jumps."""
        return spaces.Box(-2.0, 2.0, (1,), np.float32) if agent == "hare" else spaces.Discrete(3, start=-1)

    def _see(self, agent: str) -> Any:
        if agent == "hare":
            return np.array([self.places["hare"], self.time])
        return np.array([self.places[agent], self.places["hare"]], np.float32)

    def reset(
        self,
        seed: int | None = None,
        options: Any = None,  # noqa: ARG002  (the interface has it)
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Put everybody somewhere."""
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        self.agents, self.time = list(self.possible_agents), 0
        self.places = dict(zip(self.agents, self.rng.integers(1, PLACES - 1, len(self.agents)).tolist(), strict=True))
        return {agent: self._see(agent) for agent in self.agents}, {agent: {} for agent in self.agents}

    def step(
        self, actions: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, float], dict[str, bool], dict[str, bool], dict[str, Any]]:
        """Let all move at once."""
        self.time += 1
        for agent, action in actions.items():
            self.places[agent] += round(float(np.ravel(action)[0]))
        self.places["hare"] = int(np.clip(self.places["hare"], 0, PLACES - 1))
        hounds = [agent for agent in self.agents if agent != "hare"]
        out = {agent: not 0 <= self.places[agent] < PLACES for agent in hounds}
        caught = any(self.places[agent] == self.places["hare"] for agent in hounds)
        over = caught or all(out.values())
        for agent in hounds:
            self.places[agent] = int(np.clip(self.places[agent], 0, PLACES - 1))
        rewards = {
            agent: -1.0 if out.get(agent) else float(caught) * (-1 if agent == "hare" else 1) for agent in self.agents
        }
        terminations = {agent: over or out.get(agent, False) for agent in self.agents}
        truncations = dict.fromkeys(self.agents, self.time >= self.limit)
        seen = {agent: self._see(agent) for agent in self.agents}
        infos: dict[str, Any] = {agent: {} for agent in self.agents}
        self.agents = [agent for agent in self.agents if not (terminations[agent] or truncations[agent])]
        return seen, rewards, terminations, truncations, infos


class Nim(AECEnv):  # type: ignore[misc]  # PettingZoo ships no types.
    """Two players take up to three matches in turn, and the last one wins; a mask forbids to take too many."""

    metadata = {"name": "nim_v0"}  # noqa: RUF012  (the interface has it so)

    def __init__(self, most: int = 12) -> None:
        super().__init__()
        self.most, self.render_mode = most, None
        self.possible_agents = ["player_0", "player_1"]
        self.rng = np.random.default_rng()

    def observation_space(self, agent: str) -> spaces.Space[Any]:  # noqa: ARG002  (both see the same)
        """Return the number of matches, with the mask."""
        parts = {"observation": spaces.Discrete(self.most + 1), "action_mask": spaces.Box(0, 1, (3,), np.int8)}
        return spaces.Dict(parts)

    def action_space(self, agent: str) -> spaces.Space[Any]:  # noqa: ARG002  (both take the same)
        """Return how many matches to take, less one."""
        return spaces.Discrete(3)

    def observe(self, agent: str) -> dict[str, Any]:
        """Return what the agent sees."""
        mask = (np.arange(1, 4) <= self.matches) & (agent == self.agent_selection)
        return {"observation": self.matches, "action_mask": mask.astype(np.int8)}

    def reset(self, seed: int | None = None, options: Any = None) -> None:  # noqa: ARG002  (the interface has it)
        """Lay out matches."""
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        self.agents = list(self.possible_agents)
        self.matches = int(self.rng.integers(4, self.most + 1))
        self.rewards = dict.fromkeys(self.agents, 0.0)
        self._cumulative_rewards = dict.fromkeys(self.agents, 0.0)
        self.terminations, self.truncations = dict.fromkeys(self.agents, False), dict.fromkeys(self.agents, False)
        self.infos: dict[str, Any] = {agent: {} for agent in self.agents}
        self.agent_selection = self.agents[0]

    def step(self, action: int | None) -> None:
        """Take matches, or leave."""
        agent = self.agent_selection
        if self.terminations[agent]:
            self._was_dead_step(action)
            return
        assert action is not None
        self._cumulative_rewards[agent] = 0.0
        self.matches -= int(action) + 1
        assert self.matches >= 0, "took more than there are"
        other = self.possible_agents[self.possible_agents[0] == agent]
        if self.matches == 0:
            self.rewards = {agent: 1.0, other: -1.0}
            self.terminations = dict.fromkeys(self.agents, True)
        self.agent_selection = other
        self._accumulate_rewards()
