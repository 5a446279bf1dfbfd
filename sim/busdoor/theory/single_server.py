"""One request at a time, or a few: the classical queues of one slot, or of c slots."""

from __future__ import annotations

from math import inf


def mg1_wait_s(rate_rps: float, mean_service_s: float, service_cv: float) -> float:
    """Mean wait of Poisson arrivals before one server with any service times (Pollaczek-Khinchine).

    Parameters
    ----------
    rate_rps : float
        Arrivals per second.
    mean_service_s, service_cv : float
        Mean service time in seconds, and its standard deviation over its mean.

    Returns
    -------
    float
        Seconds in the queue, service not counted; infinity when the load is 1 or more.

    References
    ----------
    Kleinrock, Queueing Systems, vol. 1 (1975), section 5.6.

    Examples
    --------
    >>> round(mg1_wait_s(0.8, 1.0, 0.0), 3), round(mg1_wait_s(0.8, 1.0, 1.0), 3)
    (2.0, 4.0)
    """
    load = rate_rps * mean_service_s
    return load * mean_service_s * (1 + service_cv**2) / (2 * (1 - load)) if load < 1 else inf


def md1_wait_s(rate_rps: float, service_s: float) -> float:
    """Mean wait of Poisson arrivals before one fixed-time server; units as `mg1_wait_s`.

    Examples
    --------
    >>> round(md1_wait_s(0.8, 1.0), 3)
    2.0
    """
    return mg1_wait_s(rate_rps, service_s, 0.0)


def mm1_wait_s(rate_rps: float, mean_service_s: float) -> float:
    """Mean wait of Poisson arrivals before one exponential server; units as `mg1_wait_s`.

    Examples
    --------
    >>> round(mm1_wait_s(0.8, 1.0), 3)
    4.0
    """
    return mg1_wait_s(rate_rps, mean_service_s, 1.0)


def erlang_c(num_servers: int, offered_load: float) -> float:
    """Share of Poisson arrivals that find all servers busy, service being exponential (M/M/c).

    Parameters
    ----------
    num_servers : int
        Servers; slots of a continuous batch whose step time does not depend on its size.
    offered_load : float
        Arrival rate times mean service time, in servers.

    Returns
    -------
    float
        A share; 1 when the load is `num_servers` or more.

    References
    ----------
    Erlang (1917), by the recursion of Erlang B, which does not overflow.

    Examples
    --------
    >>> round(erlang_c(8, 6.4), 4)
    0.4576
    """
    if offered_load >= num_servers:
        return 1.0
    blocked = 1.0
    for servers in range(1, num_servers + 1):
        blocked = offered_load * blocked / (servers + offered_load * blocked)
    return num_servers * blocked / (num_servers - offered_load * (1 - blocked))


def mmc_wait_s(rate_rps: float, mean_service_s: float, num_servers: int) -> float:
    """Mean wait, Poisson, `num_servers` exponential servers, one queue; units as `mg1_wait_s`.

    Examples
    --------
    >>> round(mmc_wait_s(6.4, 1.0, 8), 3)
    0.286
    """
    load = rate_rps * mean_service_s
    if load < num_servers:
        return erlang_c(num_servers, load) * mean_service_s / (num_servers - load)
    return inf


def gm1_sigma(load: float, burstiness: float) -> float:
    """Share of gamma arrivals that have to wait before one exponential server.

    It is the root below 1 of sigma = A*(mu (1 - sigma)), A* being the transform of the gaps.

    Parameters
    ----------
    load : float
        Arrival rate times mean service time, below 1.
    burstiness : float
        Shape of the gamma gaps: 1 is Poisson, less is burstier (their CV is 1 / sqrt(burstiness)).

    References
    ----------
    Kleinrock, Queueing Systems, vol. 1 (1975), section 6.4.

    Examples
    --------
    >>> round(gm1_sigma(0.8, 1.0), 6)
    0.8
    """
    from scipy.optimize import brentq

    def excess(sigma: float) -> float:
        return float(sigma - (1 + (1 - sigma) / (load * burstiness)) ** -burstiness)

    # 1 is always a root; at a load below 1 the other lies below it, and `excess` is positive in
    # between.
    return float(brentq(excess, 0.0, 1 - 0.1 * (1 - load) * min(1.0, burstiness)))


def gm1_wait_s(rate_rps: float, mean_service_s: float, burstiness: float) -> float:
    """Mean wait of gamma arrivals before one exponential server, exactly; units as `mg1_wait_s`.

    Examples
    --------
    >>> [round(gm1_wait_s(0.8, 1.0, 1 / cv**2), 2) for cv in (1, 2, 4)]
    [4.0, 10.96, 38.8]
    """
    if rate_rps * mean_service_s >= 1:
        return inf
    sigma = gm1_sigma(rate_rps * mean_service_s, burstiness)
    return sigma * mean_service_s / (1 - sigma)


def kingman_wait_s(
    rate_rps: float, mean_service_s: float, gap_cv: float, service_cv: float
) -> float:
    """Mean wait before one server, approximate; neither bound nor exact unless Poisson.

    Parameters
    ----------
    rate_rps, mean_service_s, service_cv : float
        As `mg1_wait_s`.
    gap_cv : float
        Standard deviation of the gaps between arrivals over their mean.

    Returns
    -------
    float
        Seconds in the queue; right in heavy traffic. Infinity when the load is 1 or more.

    References
    ----------
    Kingman, "The single server queue in heavy traffic" (1961).

    Examples
    --------
    >>> [round(kingman_wait_s(0.8, 1.0, cv, 1.0), 1) for cv in (0.5, 1, 2, 4)]
    [2.5, 4.0, 10.0, 34.0]
    """
    load = rate_rps * mean_service_s
    return load / (1 - load) * (gap_cv**2 + service_cv**2) / 2 * mean_service_s if load < 1 else inf
