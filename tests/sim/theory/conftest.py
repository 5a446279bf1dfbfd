"""What checks against theory share: servers with ample memory, means with intervals."""

from dataclasses import dataclass

import numpy as np
import pytest

from busdoor.kv.contiguous import ContiguousKV
from busdoor.kv.paged import PagedKV
from busdoor.policies.static import StaticPolicy
from busdoor.policies.vllm import VllmPolicy
from busdoor.simulator.simulate import simulate
from busdoor_workloads import Trace

PLENTY = 10**9  # blocks, tokens, slots: so many that they never matter
NUM_BATCHES = 20  # batch means of a confidence interval
STUDENT_95 = 2.093  # two-sided 95 % of Student's t with 19 degrees of freedom


def continuous_policy(max_num_seqs=PLENTY):
    """Continuous batching that is bounded by its slots alone."""
    return VllmPolicy(
        PagedKV(PLENTY, 16), max_num_seqs, max_num_batched_tokens=PLENTY, max_model_len=PLENTY
    )


def static_policy(batch_size, **options):
    """Static batching in memory that any batch fits."""
    return StaticPolicy(
        ContiguousKV(batch_size * PLENTY), batch_size, max_model_len=PLENTY // 2, **options
    )


@dataclass
class Served:
    """The requests of a run, and how long they took, in the trace's order."""

    result: object

    def __post_init__(self):
        self.table = self.result.requests
        assert (self.table["status"] == "finished").all()

    def __getattr__(self, column):
        return self.table[column].to_numpy()

    @property
    def wait_s(self):
        return self.first_scheduled_s - self.arrival_s

    @property
    def latency_s(self):
        return self.finish_s - self.arrival_s

    @property
    def tpot_s(self):
        many = self.output_tokens > 1
        return ((self.finish_s - self.first_token_s)[many]) / (self.output_tokens[many] - 1)


def serve_trace(
    policy, step_time, arrival_s, output_tokens, input_tokens=None, iterations=False, **options
):
    """Run requests, with prompts of one token by default, and return them as `Served`."""
    inputs = (
        np.ones(len(arrival_s))
        if input_tokens is None
        else np.broadcast_to(input_tokens, len(arrival_s))
    )
    trace = Trace(arrival_s=arrival_s, input_tokens=inputs, output_tokens=output_tokens)
    how = {
        "lookahead": 0,
        "iterations": iterations,
        **options,
    }  # the formulas are of an iteration that is decided when the one before ends
    return Served(simulate(trace, policy, step_time, **how))


def mean_and_error(values):
    """The mean of a run's values, in order, and its 95 % half width by batch means."""
    batches = [
        batch.mean() for batch in np.array_split(np.asarray(values, dtype=float), NUM_BATCHES)
    ]
    return np.mean(values), STUDENT_95 * np.std(batches, ddof=1) / np.sqrt(NUM_BATCHES)


def agree(values, expected, tolerance, what):
    """The mean of `values` must lie within `tolerance` (relative) of what theory expects."""
    mean, error = mean_and_error(values)
    assert abs(mean / expected - 1) <= tolerance, (
        f"{what}: simulated {mean:.5g} ± {error:.2g} (95 %), closed form {expected:.5g}: "
        f"off by {mean / expected - 1:+.2%}, allowed {tolerance:.1%}"
    )


@pytest.fixture(scope="session")
def continuous():
    return continuous_policy


@pytest.fixture(scope="session")
def static():
    return static_policy


@pytest.fixture(scope="session")
def serve():
    return serve_trace


@pytest.fixture(scope="session")
def assert_agrees():
    return agree


@pytest.fixture
def rng():
    return np.random.default_rng(20240701)
