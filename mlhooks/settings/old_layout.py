"""Recognize configurations from before ML-Agents 0.16, and say how to convert them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_OLD_KEYS = {"trainer", "batch_size", "buffer_size", "use_recurrent", "normalize", "hidden_units", "num_layers"}

HOW_TO_CONVERT = (
    "this is the layout from before ML-Agents 0.16, with behaviors at the top level. To convert it, put each behavior "
    "under behaviors: and the section default under default_settings:; in each of them rename trainer to trainer_type, "
    "move batch_size, buffer_size, learning_rate, learning_rate_schedule, beta, epsilon, lambd, num_epoch, tau, "
    "buffer_init_steps and init_entcoef under hyperparameters:, move normalize, hidden_units, num_layers and "
    "vis_encode_type under network_settings:, move memory_size and sequence_length under network_settings.memory: "
    "if use_recurrent is true (and drop use_recurrent), rename encoding_size of a reward signal to "
    "network_settings.hidden_units, and write large numbers such as 5.0e5 as they are"
)


def old_layout_key(raw: Mapping[str, Any]) -> str | None:
    """Return the first top-level key that shows the old layout, or None."""
    if "behaviors" in raw or "default_settings" in raw:
        return None
    for key, value in raw.items():
        if isinstance(value, Mapping) and _OLD_KEYS & value.keys():
            return key
    return None
