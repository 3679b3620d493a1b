"""The package's trainer of one behavior, with its ghost trainer under self-play: what its `TrainerController` does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlagents_envs.base_env import BehaviorSpec
from torch import nn

from mlhooks.mlagents_wheel.side import APART, Side


class Learner:
    """Makes the package's trainer, and joins the behavior ids that appear to it.

    Args:
        kind: the trainer class.
        name: of the behavior.
        spec: its observations and actions.
        settings: the package's `TrainerSettings`.
        training: whether it learns.
        seed: of the run.
        artifact_path: the behavior's folder.
        reward_buffer: how many returns of episodes are remembered.
        controller: the run's `GhostController`, where there is self-play.

    Attributes:
        inner: the trainer of the class that was asked for; outer: what advances, a ghost trainer around it or itself.
        sides: the agents by behavior id, in the order in which these appeared.
    """

    def __init__(
        self,
        kind: type,
        name: str,
        spec: BehaviorSpec,
        settings: Any,
        *,
        training: bool,
        seed: int,
        artifact_path: str,
        reward_buffer: int,
        controller: Any = None,
    ) -> None:
        self.name, self.spec, self.settings = name, spec, settings
        self.inner: Any = kind(name, reward_buffer, settings, training, False, seed, artifact_path)
        self.outer: Any = self.inner
        self.sides: dict[str, Side] = {}
        self.saves_replay = bool(getattr(self.inner, "checkpoint_replay_buffer", False))
        if self.saves_replay:
            self.inner.checkpoint_replay_buffer = False  # It is saved with the rest of the state.
        _write_no_files(self.inner)
        if controller is not None:
            from mlagents.trainers.ghost.trainer import GhostTrainer

            self.outer = GhostTrainer(self.inner, name, controller, reward_buffer, settings, training, artifact_path)

    @property
    def ghost(self) -> Any:
        """The ghost trainer; None without self-play."""
        return None if self.outer is self.inner else self.outer

    def join(self, behavior_id: str) -> Side:
        """Make the policy and the agent manager of a behavior id that appears."""
        from mlagents.trainers.agent_processor import AgentManager
        from mlagents.trainers.behavior_id_utils import BehaviorIdentifiers

        team = _team(behavior_id)
        full = f"{self.name}?team={team}"
        if self.ghost is None and self.sides:  # Without self-play all teams are one policy's, as those of mlhooks are.
            full = next(iter(self.inner.policies))
            policy = self.inner.get_policy(full)
        else:
            parsed = BehaviorIdentifiers(behavior_id=full, brain_name=self.name, team_id=team)
            policy = self.outer.create_policy(parsed, self.spec)
            self.outer.add_policy(parsed, policy)
        manager = AgentManager(policy, full, self.outer.stats_reporter, self.settings.time_horizon, threaded=False)
        self.outer.publish_policy_queue(manager.policy_queue)
        self.outer.subscribe_trajectory_queue(manager.trajectory_queue)
        side = self.sides[behavior_id] = Side(manager, self.spec, APART * len(self.sides))
        return side

    def learns(self, behavior_id: str) -> bool:
        """Return whether what agents of a behavior id do is learned from, now."""
        return self.ghost is None or _team(behavior_id) == self.ghost._learning_team

    def parts(self) -> Mapping[str, Any]:
        """Return the modules and torch optimizers that the package puts into its checkpoints, by their names there."""
        saver = getattr(self.inner, "model_saver", None)
        registered = dict(getattr(saver, "modules", None) or {})
        if not registered:
            for name in ("policy", "optimizer"):
                part: Any = getattr(self.inner, name, None)
                registered |= part.get_modules() if hasattr(part, "get_modules") else {}
        return registered

    @property
    def rewards(self) -> dict[str, dict[str, float]]:
        """What the episodes that go on have come to, by reward signal and agent; the package counts it."""
        return getattr(self.inner, "collected_rewards", {})

    def modules(self) -> dict[str, nn.Module]:
        """Return the modules among the parts."""
        return {name: part for name, part in self.parts().items() if isinstance(part, nn.Module)}

    def spread_weights(self) -> None:
        """Give all policies of a ghost trainer, which have the weights of its first moment, those that were loaded."""
        ghost, weights = self.ghost, self.inner.policy.get_weights()
        for policy in ghost.policies.values():
            policy.load_weights(weights)
        for snapshot in [ghost.current_policy_snapshot, *ghost.policy_snapshots]:
            for name in snapshot:
                snapshot[name] = weights

    def drop_agents(self, worker: int | None = None) -> None:
        """Drop what agents of a worker, or of all, were in the middle of."""
        for side in self.sides.values():
            gone = side.drop_agents(worker)
            for rewards in [*self.rewards.values(), getattr(self.inner, "collected_group_rewards", {})]:
                for agent in gone:
                    rewards.pop(agent, None)
        if worker is None:
            self.outer.end_episode()


def _team(behavior_id: str) -> int:
    return int(behavior_id.partition("?team=")[2] or 0)


def _write_no_files(trainer: Any) -> None:
    """Let the package's saver of models write nothing, because mlhooks saves; one of a package's own stays."""
    from mlagents.trainers.model_saver.torch_model_saver import TorchModelSaver

    class Saver(TorchModelSaver):  # type: ignore[misc]
        """Knows modules and exporter, and leaves files alone."""

        def save_checkpoint(self, behavior_name: str, step: int) -> tuple[str, list[str]]:  # noqa: ARG002
            """Write nothing, and name nothing that the package would later remove."""
            return "", []

        def copy_final_model(self, source_nn_path: str) -> None:
            """Copy nothing."""

    if type(getattr(trainer, "model_saver", None)) is TorchModelSaver:
        trainer.model_saver.__class__ = Saver
