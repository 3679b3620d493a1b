"""The way of arrays to the device."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

CPU = torch.device("cpu")  # to compare a device with it asks less than its type, for which torch makes a string


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """The array as a tensor on the device; on the CPU it shares the array's memory.

    To CUDA it is copied twice: at once into pinned memory, so that the array may change after the call, and from there
    while both sides go on. Each call pins memory of its own, which torch hands out again only when the device has read
    it.
    """
    tensor = torch.from_numpy(array)
    if device == CPU:
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
