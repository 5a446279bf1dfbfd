"""A workload: laws of lengths and arrivals, from which any number of requests can be generated."""

from __future__ import annotations

from dataclasses import replace
from numbers import Real

from busdoor_workloads.config import config
from busdoor_workloads.generate import generate, generate_until
from busdoor_workloads.laws import Laws
from busdoor_workloads.trace import Trace


@config
class Workload(Laws):
    """The laws of requests: their lengths, arrivals and shared prompts.

    Parameters
    ----------
    name : str
        Name in tables and plots.
    num_requests : int
        Default number of requests of `generate` (vLLM's `--num-prompts`, same default).
    duration_s : float, optional
        Instead: generate the requests that arrive in this many seconds.
    input_tokens : Lengths, table or int
        Law of the prompts. In a session or after a shared prefix, it is of the new tokens.
    output_tokens : Lengths, table or int
        Law of the answers, independent of the prompts.
    lengths : Pairs or table
        Instead of the two: a joint law.
    arrival : Arrivals, table or float
        The arrival process; a number is a Poisson rate. By default all requests arrive at once.
    multi_turn : MultiTurn or table, optional
        Conversations.
    shared_prefix : SharedPrefix or table, optional
        Groups of prompts with a common beginning.
    timeout_s : float or distribution, optional
        The client gives up this many seconds after arrival.
    max_output_tokens : int, optional
        The client's cap; longer answers stop there.
    max_output_factor : float, optional
        Instead: the cap is this multiple of the answer's length, rounded up (1: the client knows
        it).
    priorities : list of PriorityClass or tables
        Classes, drawn independently for each request.
    source : str
        Source of the numbers; kept in the trace's metadata, as the next two.
    licence : str
        Terms of the numbers.
    note : str
        What the workload leaves out.

    Raises
    ------
    ValueError
        One sentence that names the key, the value and what would be right.

    Examples
    --------
    >>> chat = Workload(input_tokens={"type": "lognormal", "p50": 900, "p99": 6000}, output_tokens=128, arrival=4.0)
    >>> trace = chat.generate(seed=1, num_requests=3)
    >>> trace.input_tokens, trace.arrival_s.round(2)
    (array([2475, 2050, 1492]), array([0.02, 0.35, 0.89]))
    >>> chat.generate(seed=1, num_requests=3, request_rate=8).arrival_s.round(2)
    array([0.01, 0.17, 0.44])
    """

    def at_rate(self, request_rate: float) -> Workload:
        """Return the workload with arrivals at `request_rate` requests per second on average.

        A parametric process keeps its shape; a burst, a closed loop and a process fitted to a trace
        become Poisson.
        """
        if not (isinstance(request_rate, Real) and request_rate > 0):
            raise ValueError(
                f"request_rate is {request_rate!r}; it must be a number of requests per second, "
                f"more than 0"
            )
        return replace(self, arrival=self.arrival.at_rate(request_rate))

    def generate(
        self, seed: int = 0, *, num_requests: int | None = None, request_rate: float | None = None
    ) -> Trace:
        """Draw a trace.

        Parameters
        ----------
        seed : int
            Seed; the same seed gives the same trace.
        num_requests : int, optional
            Number of requests; by default the workload's own, or those of its `duration_s`.
        request_rate : float, optional
            Requests per second, as by `at_rate`; by default the workload's own. The lengths do not
            change.

        Returns
        -------
        Trace
            In order of arrival.
        """
        workload = self if request_rate is None else self.at_rate(request_rate)
        if num_requests is None and self.duration_s is not None:
            return generate_until(workload, seed, self.duration_s)
        return generate(workload, seed, self.num_requests if num_requests is None else num_requests)
