"""Train in environments of PettingZoo, and play the policies that come of it: the figures of docs/results.md.

`python benchmarks/many_agents.py spread --seeds 5` trains `simple_spread_poca` and `simple_spread_ppo`, and plays both
and a random policy for 200 episodes each; `four` trains `connect_four_ppo`, plays 200 games against a player that takes
any column that is not full, half of them as the second player, and shows its ELO, too; `pistons` trains by images in
pistonball for one update. Runs are kept in `--folder`, and are not made again that are complete there.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import mlhooks

EPISODES, GAMES = 200, 200


def trained(name: str, config: str, seed: int, folder: Path, **settings: Any) -> Path:
    """Return the folder of a run of an example with a seed, and make it where it is not there."""
    path = folder / f"{name}-{seed}"
    if not list(path.glob("*.policy.pt")):
        overrides = [f"{key}={value}" for key, value in settings.items()]
        mlhooks.train(config, run_id=path.name, results_dir=str(folder), seed=seed, force=True, overrides=overrides)
    return path


def spread_returns(choose: Callable[[Any], Any], seed: int) -> list[float]:
    """Return the mean return of the agents of simple_spread in each of many episodes."""
    from mpe2 import simple_spread_v3

    env = simple_spread_v3.parallel_env()
    returns = []
    for episode in range(EPISODES):
        observations, _ = env.reset(seed=seed * 100_000 + episode)
        total = 0.0
        while env.agents:
            actions = choose(np.stack([observations[agent] for agent in env.agents]))
            moves = dict(zip(env.agents, actions.tolist(), strict=True))
            observations, rewards, *_ = env.step(moves)
            total += statistics.mean(rewards.values())
        returns.append(total)
    env.close()
    return returns


def spread(seeds: int, folder: Path) -> None:
    """Compare POCA with PPO in simple_spread; the runs of all seeds may be made beside one another before."""
    rng = np.random.default_rng(0)
    random = spread_returns(lambda seen: rng.integers(0, 5, len(seen)), 999)
    deviation = statistics.stdev(random)
    print(f"| random | | {statistics.mean(random):.2f} ± {deviation:.2f} over {EPISODES} episodes |")
    for algo in ("poca", "ppo"):
        means = []
        for seed in range(1, seeds + 1):
            policy = mlhooks.load(trained(f"spread_{algo}", f"simple_spread_{algo}", seed, folder))
            returns = spread_returns(lambda seen, policy=policy: policy.predict(seen), 1000 + seed)
            means.append(statistics.mean(returns))
            print(f"| {algo} | {seed} | {means[-1]:.2f} ± {statistics.stdev(returns):.2f} |", flush=True)
        above = (statistics.median(means) - statistics.mean(random)) / deviation
        error = (statistics.median(means) - statistics.mean(random)) / (deviation / EPISODES**0.5)
        print(
            f"| {algo} | median of {seeds} | {statistics.median(means):.2f}, {above:.1f} deviations of an episode and "
            f"{error:.1f} of the mean above random |",
            flush=True,
        )


def four_score(policy: Any, seed: int) -> tuple[int, int, int]:
    """Return wins, draws and losses against a random player."""
    from pettingzoo.classic.connect_four.connect_four import env as make

    env, rng, counts = make(), np.random.default_rng(seed), [0, 0, 0]
    for game in range(GAMES):
        env.reset(seed=game)
        own = env.possible_agents[game % 2]
        result = 0.0
        for agent in env.agent_iter():
            seen, reward, terminated, truncated, _ = env.last()
            if agent == own:
                result = reward
            action = None
            if not (terminated or truncated):
                allowed = seen["action_mask"]
                action = rng.choice(np.flatnonzero(allowed))
                if agent == own:
                    action = policy.predict(seen["observation"], action_mask=allowed == 0)
            env.step(action)
        counts[1 - int(np.sign(result))] += 1
    env.close()
    return counts[0], counts[1], counts[2]


def four(seeds: int, folder: Path) -> None:
    """Play against a random player after self-play."""
    for seed in range(1, seeds + 1):
        path = trained("four", "connect_four_ppo", seed, folder)
        wins, draws, losses = four_score(mlhooks.load(path), seed)
        status = json.loads((path / "run_logs" / "training_status.json").read_text(encoding="utf-8"))
        rating = status["connect_four"]["elo"]
        print(f"| connect_four_ppo | {seed} | {wins} wins, {draws} draws, {losses} losses of {GAMES} | {rating:,.0f} |")


def pistons(seeds: int, folder: Path) -> None:
    """Train by images for one update."""
    for seed in range(1, seeds + 1):
        path = folder / f"pistons-{seed}"
        run = mlhooks.train(
            env="pettingzoo:butterfly/pistonball_v6",
            run_id=path.name,
            results_dir=str(folder),
            seed=seed,
            force=True,
            overrides=[
                "behaviors.*.hyperparameters.buffer_size=500",
                "behaviors.*.max_steps=520",
                "behaviors.*.summary_freq=500",
                "env_settings.num_areas=1",
                "env_settings.env_kwargs={max_cycles: 25}",
            ],
        )
        (trainer,) = run.trainers.values()
        print(f"| pistonball, 20 agents | {seed} | {trainer.updates} update, mean return {trainer.mean_reward:.2f} |")


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("spread", "four", "pistons"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path("results/many_agents"))
    args = parser.parse_args()
    {"spread": spread, "four": four, "pistons": pistons}[args.what](args.seeds, args.folder)


if __name__ == "__main__":
    main()
