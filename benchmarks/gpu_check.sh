#!/usr/bin/env bash
# Checks and times the library on the GPU of this machine: one command, no network.
#
#   benchmarks/gpu_check.sh OUT [SECONDS] [IMDB]
#
# OUT is a folder: OUT/lines.jsonl gets the results as they come, with GPU, driver, versions and commit. SECONDS (480) is
# the time for all of it; what does not fit is left out, and the same command again goes on with what is missing. IMDB is
# the folder or archive of the reviews; without it those two runs are left out. Needs python3 with jax for CUDA, flax,
# optax, orbax-checkpoint, torch and the rest of the extra `train`.
set -uo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
out=$(mkdir -p "$1" && cd "$1" && pwd)
end=$((SECONDS + ${2:-480}))
imdb=${3:-}
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
export XLA_PYTHON_CLIENT_PREALLOCATE=false TF_CPP_MIN_LOG_LEVEL=2
cd "$root"
lines=$out/lines.jsonl
rm -f "$out/failed"

part() { # SECONDS COMMAND...: runs it for at most so long and no longer than is left, its output to the log
    local left=$((end - SECONDS)) limit=$1
    shift
    if [ "$left" -lt 5 ]; then
        echo "no time left for: $*"
        return
    fi
    timeout -s TERM -k 20 $((left < limit ? left : limit)) "$@" >>"$out/log.txt" 2>&1 || echo "exit $?: $*" | tee -a "$out/failed"
}

shares=$(($(nproc) > 8 ? 8 : 1))
part 200 python3 benchmarks/gpu/ratios.py --out "$lines"
for i in $(seq 0 $((shares - 1))); do # compilation is most of it, and tuning of products most of that
    XLA_FLAGS=--xla_gpu_autotune_level=0 part 120 python3 benchmarks/gpu/correctness.py --out "$lines" --share "$i/$shares" &
done
wait
part 240 python3 benchmarks/gpu/work.py --out "$lines" --workdir "$out/runs" ${imdb:+--imdb "$imdb"}
part 60 python3 benchmarks/gpu/kernels.py --out "$lines"
XLA_FLAGS=--xla_gpu_deterministic_ops=true part 150 python3 scripts/battery.py kills --seed 2 --count 3
part 600 python3 -m qlstm_jax.studies.formal --cells pr_lstm:ldru --tasks modular_arithmetic --steps 60000 --seeds 3 \
    --set train.batch_size=256 train.schedule=cosine train.learning_rate=0.002 formal.curriculum=0.7 \
    eval.stride=20 --out "$out/formal" --workdir "$out/runs/formal"
python3 benchmarks/gpu/table.py "$lines"
test ! -e "$out/failed"
