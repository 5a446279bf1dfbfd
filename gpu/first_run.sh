#!/usr/bin/env bash
# The first session on a GPU, in one command of less than ten minutes: a replay, the quick benchmark, a twin, tests.
# Every stage has its own time limit and keeps what it has measured; a stage that fails does not stop the next one.
# Usage: [OUT=folder] [PEERS=folder] gpu/first_run.sh [--device cpu]     (cpu: a rehearsal at toy sizes)
set -u
cd "$(dirname "$0")/.." || exit 1
OUT=${OUT:-gpu-first-run}
mkdir -p "$OUT"
export PYTHONPATH=sim:workloads:gpu${PYTHONPATH:+:$PYTHONPATH}
export TRITON_CACHE_DIR=${TRITON_CACHE_DIR:-${TMPDIR:-/tmp}/busdoor-triton}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python=${PYTHON:-python3}
busdoor=("$python" -c "import sys; from busdoor.cli import main; sys.exit(main(sys.argv[1:]))")

if [ "${1:-}" = --device ] && [ "${2:-}" = cpu ]; then
    device=(--device cpu)
    model=(--backend torch --model tiny-llama)
    clock=(--clock cpu)
    grid=(--max-num-seqs 4 --max-num-batched-tokens 64 --max-model-len 128 --budget 4s)
    tests=(tests/gpu/test_import.py)
    blocks=200
else
    device=(--device cuda)
    model=(--backend triton --model qwen3-0.6b)
    clock=()
    grid=(--budget 80s)
    tests=(-m gpu tests/gpu)
    blocks=20000
fi

failed=0
stage() { # name, seconds, command ...: interrupted at its time limit, output in $work/name.txt
    local name=$1 limit=$2 start=$SECONDS code
    shift 2
    timeout --signal=INT --kill-after=10 "$limit" "$@" >"$work/$name.txt" 2>&1
    code=$?
    [ "$code" -eq 0 ] || failed=1
    echo "$name: exit $code after $((SECONDS - start)) s of $limit" | tee -a "$OUT/stages.txt"
}

: >"$OUT/stages.txt"
if command -v nvidia-smi >/dev/null; then nvidia-smi >>"$OUT/stages.txt" 2>&1; fi

cat >"$work/run.toml" <<TOML
[kv]
num_blocks = $blocks
[[policy]]
name = "vllm"
max_num_seqs = 64
[[policy]]
name = "static"
batch_size = 8
TOML
"$python" - >"$work/trace.jsonl" <<'PY'
import json, random
draw = random.Random(0)
for i in range(40):
    print(json.dumps({"arrival_s": i / 20, "input_tokens": draw.randint(8, 200), "output_tokens": draw.randint(4, 80)}))
PY

# 540 s together; the rest of ten minutes is for starting and copying. The replay comes first, as it is the shortest and
# the most informative; the tests come last, since a kernel that hangs would take the time of later stages.
stage replay 80 "${busdoor[@]}" replay "$work/trace.jsonl" --config "$work/run.toml" "${model[@]}" "${clock[@]}" --out "$work/replay"
stage bench 150 "$python" -m benchmarks.gpu --quick --deadline 130 "${device[@]}" ${PEERS:+--peers "$PEERS"} \
    --csv "$OUT/bench.csv"
stage twin 150 "${busdoor[@]}" twin "${model[@]}" "${grid[@]}" --out "$work/twin"
stage tests 160 "$python" -m pytest -q -p no:cacheprovider "${tests[@]}" --durations=10

# At most eight files: stages, bench.csv, bench.json, log.txt, and the two results as archives.
grep -a '^{' "$work/bench.txt" | tail -n 1 >"$OUT/bench.json"
for name in replay bench twin tests; do
    printf '==== %s\n' "$name"
    tail -c 60000 "$work/$name.txt"
done >"$OUT/log.txt"
for name in replay twin; do
    [ -d "$work/$name" ] && tar -czf "$OUT/$name.tar.gz" -C "$work" "$name"
done
cat "$OUT/stages.txt"
exit "$failed"
