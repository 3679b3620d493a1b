"""The way of arrays to the device."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mlhooks.errors import UsageError

CPU = torch.device("cpu")  # Comparing devices is faster than comparing their types, for which torch makes strings.


def device_named(name: str | None) -> torch.device:
    """Return the device of that name, or the best there is.

    Raises:
        UsageError: torch does not know it, the machine does not have it, or it computes nothing.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(1, device=device).item()
    except Exception as error:
        # Torch's devices raise RuntimeError, AssertionError or NotImplementedError.
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        wanted = name or "cuda"
        build = ", or install a torch that is built for CUDA (pytorch.org says how)"
        other = build if wanted.startswith("cuda") and not torch.backends.cuda.is_built() else ""
        raise UsageError(
            f"The device {wanted!r} cannot be used: {reason}. Choose another one, such as --torch-device cpu{other}."
        ) from error
    return CPU if device.type == "cpu" else device  # torch also knows a CPU number 0.


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """Return the array as a tensor on the device; on the CPU it shares the array's memory.

    To CUDA it is copied twice: at once into pinned memory, so that the array may change after the call, and from there
    while both sides go on. Each call pins memory of its own, which torch hands out again only when the device has read
    it.
    """
    tensor = torch.from_numpy(array)
    if device == CPU:
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
