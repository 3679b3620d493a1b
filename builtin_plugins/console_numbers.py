"""Numbers as the console and its bars write them."""

from __future__ import annotations

from datetime import timedelta


def last_episodes(mean_reward: float) -> str:
    """Return the mean return of a trainer's last episodes, as the bar and the end of a run name it."""
    return f"mean reward {decimal(mean_reward)} (last 100 episodes)"


def short_number(value: float) -> str:
    """Return a number in at most five characters: 3.4, 512, 12.3k, 4.0M."""
    for limit, divisor, suffix in ((9.95, 1, ""), (999.5, 1, ""), (999_950, 1e3, "k")):
        if value < limit:
            return f"{value / divisor:.{0 if limit == 999.5 else 1}f}{suffix}"
    return f"{value / 1e6:.1f}M"


def decimal(value: float) -> str:
    """Return a reward with two decimals, or with one significant digit where these would be zeros."""
    return f"{value:.1g}" if 0 < abs(value) < 0.005 else f"{value:.2f}"


def clock(seconds: float) -> str:
    """Return a duration as hours, minutes and seconds: 0:01:23."""
    return str(timedelta(seconds=int(seconds)))
