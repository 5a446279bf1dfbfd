"""One random stream per purpose, so that a new use of randomness does not change the others."""

from __future__ import annotations

from hashlib import sha256

import numpy as np

from busdoor_workloads.given import instance, whole_number

_MAX_SEED = 2**128  # replications have seeds of 128 bits
# 128 bits of the name's digest: no two names collide, whatever their number.
_WORDS_OF_NAME = 4


def stream(seed: int, name: str) -> np.random.Generator:
    """Return the random generator of a name under a seed.

    Parameters
    ----------
    seed : int
        The run's seed, 0 or more.
    name : str
        The purpose, such as ``"arrivals"``; every name has its own independent stream.

    Returns
    -------
    numpy.random.Generator
        At the start of its stream, the same every time.

    Raises
    ------
    ValueError
        The seed is not a whole number of at least 0.

    Notes
    -----
    The name's SHA-256 is the spawn key of a `numpy.random.SeedSequence`, so streams depend only on
    their names, not on the order of the calls.

    Examples
    --------
    >>> stream(0, "arrivals").integers(100, size=3)
    array([10, 97, 68])
    >>> stream(0, "lengths").integers(100, size=3)
    array([58, 89, 36])
    """
    seed = whole_number("seed", seed, at_most=_MAX_SEED)
    instance("the stream's name", name, str, "a string")
    words = np.frombuffer(sha256(name.encode()).digest(), dtype="<u4")[:_WORDS_OF_NAME]
    key = tuple(int(word) for word in words)
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=key)))


def replication_seed(seed: int, replication: int) -> int:
    """Return the seed of one replication; replication 0 is the run itself.

    Parameters
    ----------
    seed : int
        The study's seed.
    replication : int
        Number of the replication, from 0.

    Returns
    -------
    int
        A seed for `stream`; it does not depend on the number of replications.

    Examples
    --------
    >>> replication_seed(7, 0)
    7
    >>> replication_seed(7, 1) != replication_seed(7, 2)
    True
    """
    # 63 bits fit every place a seed may be written to: JSON readers, int64 columns, TOML.
    seed = whole_number("seed", seed, at_most=_MAX_SEED)
    replication = whole_number("replication", replication)
    if replication == 0:
        return seed
    return int(stream(seed, f"replication {replication}").integers(2**63))
