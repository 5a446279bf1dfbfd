#!/usr/bin/env bash
# All that waits for a GPU, in about 13 minutes of one H100: tests, kernels, engine, replays that
# begin in the steady state, and the gain at nine points. Each part has its own limit and its own
# files, so that one that fails costs no other.
#   bash benchmarks/gpu/device_run.sh OUT [PYTHON]
# A rehearsal on a CPU, at toy sizes:
#   REHEARSE=1 bash benchmarks/gpu/device_run.sh OUT [PYTHON]
set -uo pipefail
cd "$(dirname "$0")/../.."
out=${1:?folder for the results}
python=${2:-python3}
export PYTHONPATH=sim:gpu:workloads:.
mkdir -p "$out"

part() { # name, seconds, command
    local name=$1 limit=$2
    shift 2
    local begun=$SECONDS
    timeout "$limit" "$@" >"$out/$name.txt" 2>&1
    echo "$name: status $?, $((SECONDS - begun)) s" | tee -a "$out/parts.txt"
}

if [ -n "${REHEARSE:-}" ]; then
    device=cpu profile=2 each=1 deadline=60 bench=30 model=tiny-llama
else
    device=cuda profile=60 each=100 deadline=340 bench=180 model=llama-3.1-8b
fi

# Tokens of graphs, eager steps and references; kernels against their references in half precision.
part tests 110 "$python" -m pytest -q -m gpu -p no:cacheprovider tests/gpu/kernels tests/gpu/engine/test_triton.py
# The host alone: Python of a mixed step, to compare with host_s of the replays (bar: 0.6 ms).
part host 60 "$python" -m benchmarks.gpu.host --graphs-only
# K1 to K10, linears, E1 to E8; --peers DIR adds FA3 beside K1 to K9.
part bench $((bench + 30)) "$python" -m benchmarks.gpu --device "$device" --deadline "$bench" --csv "$out/bench.csv" \
    ${PEERS:+--peers "$PEERS"} $([ "$device" = cpu ] && echo --quick)
# A profile, its calibration, and two replays of a load that lasts; meta.json has host_launch_s,
# started_at and num_alloc_retries (bar: 0).
part campaign $((deadline + 60)) "$python" -m benchmarks.gpu.campaign --device "$device" --model "$model" \
    --out "$out/twin" --profile "$profile" --each "$each" --deadline "$deadline" \
    --only azure-conv-0.90-steady --only azure-conv-0.75-steady
# Nine static batches against continuous batching; the gains are predicted first (bar: 3 %).
part gain 150 "$python" -m benchmarks.gpu.gain --device "$device" --model "$model" \
    --calibration "$out/twin/calibration.toml" --out "$out/gain"
# The same traces simulated with the calibration: errors of each step, TTFT, E2E.
part validate 120 "$python" -m busdoor validate "$out"/twin/runs/* --step-time "$out/twin/calibration.toml" \
    --out "$out/validation"
