"""Random numbers that are a pure function of a seed and a key.

Masks, augmentation and noise must be the same for any number of workers or ranks and after a resume, so
none of them may depend on how many numbers were drawn before. A hash of (seed, stream, key) has no such
state, and it is vectorised: the same code runs on NumPy arrays and on tensors on any device.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, TypeVar

import numpy as np

# Not at run time: configuration code imports this module, and torch takes seconds to import.
if TYPE_CHECKING:
    import torch
    from torch import Tensor

Array = TypeVar("Array", np.ndarray, "Tensor")

_GOLDEN, _FIRST, _SECOND = (
    c - (1 << 64) for c in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)


def _mix(x: Array) -> Array:
    """The finaliser of splitmix64 (Steele et al., 2014) on int64, whose products wrap around."""
    x = (x ^ ((x >> 30) & ((1 << 34) - 1))) * _FIRST
    x = (x ^ ((x >> 27) & ((1 << 37) - 1))) * _SECOND
    return x ^ ((x >> 31) & ((1 << 33) - 1))


def hashed(key: Array, *salts: int | str) -> Array:
    """Hash int64 keys together with the salts (seed, name of the stream, epoch, ...); any shape, int64."""
    state = 0
    for salt in salts:
        number = zlib.crc32(salt.encode()) if isinstance(salt, str) else int(salt)
        state = int(_mix(np.array([(state + number * 0x632BE5AB) % (1 << 63)], dtype=np.int64) + _GOLDEN)[0])
    return _mix(_mix(key * 1 + state) + _GOLDEN)


def uniform(key: Array, *salts: int | str) -> Array:
    """Uniform numbers in [0, 1), float64, one for each key."""
    bits = (hashed(key, *salts) >> 11) & ((1 << 53) - 1)
    if isinstance(bits, np.ndarray):
        return bits.astype(np.float64) * 2.0**-53
    return bits.double() * 2.0**-53


def uniforms(count: int, *salts: int | str) -> np.ndarray:
    """`count` uniform numbers in [0, 1) for one key, given as salts. One sample's augmentation uses these."""
    return uniform(np.arange(count, dtype=np.int64), *salts)


def seed_of(*salts: int | str) -> int:
    """A seed in [0, 2**63) for an ordinary generator, e.g. one that draws a permutation."""
    return int(hashed(np.zeros(1, dtype=np.int64), *salts)[0]) & ((1 << 63) - 1)


def seed_torch(device: torch.device, *salts: int | str) -> None:
    """Seed torch's generators of the host and of this device, from which a training step draws."""
    import torch

    seed = seed_of(*salts)
    # torch.manual_seed would take 0.3 ms per step, because it also seeds devices that are not in use.
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
