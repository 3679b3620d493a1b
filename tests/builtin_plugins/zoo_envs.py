"""Small environments of PettingZoo's interfaces, odd in what the interfaces leave open, or wrong on purpose."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces
from pettingzoo import AECEnv, ParallelEnv

from builtin_plugins.pettingzoo_own import adapt
from mlhooks.settings import RunOptions

NUMBERS = spaces.Box(-100.0, 100.0, (2,), np.float32)


class Told(ParallelEnv):
    """Plays a script: of each step the agents that are there afterwards, and what each agent that acted gets.

    An agent sees (its number, the time); a step is `{agent: (reward, "terminated" | "truncated" | None)}`, and agents
    that are only in the list behind it come new. After the last step the script begins again.
    """

    metadata = {"name": "told_v0"}  # noqa: RUF012

    def __init__(self, script, first=("a_0", "a_1"), possible=None, answers=None, infos=None, view=None):
        self.script, self.first, self.infos = script, list(first), infos
        if possible is not False:
            self.possible_agents = list(possible or first)
        self.numbers = {"a_0": 0, "a_1": 1, "a_2": 2, "b_0": 3}
        self.answers = answers or {}
        self.seeds, self.given = [], []
        self.view = np.zeros((4, 2), np.float32) if view else None  # It is overwritten at each step.

    def observation_space(self, agent):
        return NUMBERS

    def action_space(self, agent):
        return spaces.Discrete(3, start=5)

    def see(self, agent):
        seen = (self.numbers[agent], self.time)
        if self.view is None:
            return np.array(seen, np.float32)
        self.view[seen[0]] = seen
        return self.view[seen[0]]

    def reset(self, seed=None, options=None):
        self.seeds.append(seed)
        self.time, self.agents = 0, list(self.first)
        infos = self.infos(0, self.agents) if self.infos else {agent: {} for agent in self.agents}
        return self.answers.get("reset", ({agent: self.see(agent) for agent in self.agents}, infos))

    def step(self, actions):
        assert set(actions) == set(self.agents), (actions, self.agents)
        self.given.append(dict(actions))
        told, there = self.script[self.time]
        self.time += 1
        self.agents = list(there)
        shown = {*told, *there}
        answer = [
            {agent: self.see(agent) for agent in shown},
            {agent: reward for agent, (reward, _) in told.items()},
            {agent: how == "terminated" for agent, (_, how) in told.items()},
            {agent: how == "truncated" for agent, (_, how) in told.items()},
            self.infos(self.time, shown) if self.infos else {},
        ]
        for place, change in self.answers.get("step", {}).items():
            answer[place] = change(answer[place])
        return self.answers["whole"](answer) if "whole" in self.answers else tuple(answer)


class Turns(AECEnv):
    """Agents take turns; the script says for each turn everybody's reward, and who is done after it, and how."""

    metadata = {"name": "turns_v0"}  # noqa: RUF012

    def __init__(self, script, agents=("p_0", "p_1"), *, quits=False, observed=None, **wrong):
        super().__init__()
        self.script, self.possible_agents = script, list(agents)
        self.quits, self.observed, self.wrong = quits, observed, wrong
        self.seeds, self.given = [], []

    def observation_space(self, agent):
        return self.observed or NUMBERS

    def action_space(self, agent):
        return spaces.Discrete(3)

    def observe(self, agent):
        seen = np.array([self.possible_agents.index(agent), self.time], np.float32)
        if self.observed is None:
            return seen
        return {"observation": seen, "action_mask": self.wrong.get("mask", np.array([1, 0, 1], np.int8))}

    def reset(self, seed=None, options=None):
        self.seeds.append(seed)
        self.time, self.agents = 0, list(self.possible_agents)
        self.rewards = dict.fromkeys(self.agents, 0)
        self._cumulative_rewards = dict.fromkeys(self.agents, 0)
        self.terminations = dict.fromkeys(self.agents, False)
        self.truncations = dict.fromkeys(self.agents, False)
        self.infos = {agent: {} for agent in self.agents}
        self.agent_selection = self.agents[0]

    def step(self, action):
        agent = self.agent_selection
        if self.terminations[agent] or self.truncations[agent]:
            self._was_dead_step(action)
            return
        self.given.append((agent, action))
        rewards, done = self.script[self.time]
        self.time += 1
        if not self.wrong.get("forgetful"):
            self._cumulative_rewards[agent] = 0
        self.rewards = {each: rewards.get(each, 0) for each in self.agents}
        self._accumulate_rewards()
        for each, how in done.items():
            (self.terminations if how == "terminated" else self.truncations)[each] = True
        order = self.agents[(self.agents.index(agent) + 1) :] + self.agents
        self.agent_selection = next((each for each in order if each not in done), order[0])
        if self.quits and done:
            self.agents = []  # It says nothing more.
        else:
            self._deads_step_first()
        if "selection" in self.wrong:
            self.agent_selection = self.wrong["selection"]


def zoo(make, *, name=None, seed=3, worker_id=0, **settings):
    """Return the environment of a worker, made by the kind's adapter."""
    settings = {"seed": seed, "num_areas": 1, **settings}
    options = RunOptions.model_validate({"env_settings": settings})
    return adapt(
        make,
        title="pettingzoo:tried",
        behavior_name=name,
        worker_id=worker_id,
        seed=seed,
        num_areas=settings["num_areas"],
        options=options,
    )


def shown(env, behavior_id):
    """Return what the environment shows of a behavior: those that wait and those that ended, in tuples."""
    decisions, terminals = env.get_steps(behavior_id)
    waits = list(zip(decisions.agent_id.tolist(), decisions.obs[0].tolist(), decisions.reward.tolist(), strict=True))
    ends = list(
        zip(
            terminals.agent_id.tolist(),
            terminals.obs[0].tolist(),
            terminals.reward.tolist(),
            terminals.interrupted.tolist(),
            strict=True,
        )
    )
    return waits, ends
