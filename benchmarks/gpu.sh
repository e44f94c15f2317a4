#!/usr/bin/env bash
# The tables of docs/speed.md on the GPU of this machine; a quarter of an hour on a fast one:
#
#     benchmarks/gpu.sh MODEL TRAIN.parquet HELD_OUT.parquet [WORK]
#
# MODEL is SmolLM2-135M-Instruct (rmg models fetch), the rows are HelpSteer2's (examples/train/pointwise/data_config.yaml).
# First the kernel against the plain computation. Then a training step of the small model, and of one with the shape of
# SmolLM2-1.7B and random weights; from a supervised start, judging and `exact` beside `grpo`; the step by group size.
# Without the kernel nothing is measured; any other part that fails leaves the others. Results go to
# benchmarks/results/gpu_*.json; the training step's and the runs of `exact` are not made again where they are there.
set -u
model=$1 train=$2 held_out=$3 work=${4:-runs/gpu}
here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
results=$here/results
mkdir -p "$work" "$results"
export TOKENIZERS_PARALLELISM=false PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
say() { echo "== $* (${SECONDS} s)"; }

python3 - <<'PY' || exit 1
import sys, torch
if not torch.cuda.is_available():
    sys.exit("error: torch sees no GPU here: run this where there is one")
print(torch.cuda.get_device_name(), "torch", torch.__version__)
PY

step() { # NAME MODEL OPTION…
    local name=$1 folder=$2
    shift 2
    python3 "$here/train_step.py" --model "$folder" --dtype bfloat16 --one-after-another --memory-limit 100 \
        --out "$results/gpu_train_step_$name.json" "$@"
}

say "the kernel"
(cd "$root" && python3 -m pytest -p no:cacheprovider tests/models/test_fused_attention.py -k gpu) || exit 1
say "a training step, 135M"
step 135m "$model" --systems ours trl_bare exact --micro-batches 32 64
say "a training step, 1.7B"
[ -d "$work/random-1.7b" ] ||
    python3 "$here/random_model.py" --tokenizer "$model" --shape smollm2-1.7b --out "$work/random-1.7b"
step 1700m "$work/random-1.7b" --systems ours trl_bare exact --micro-batches 8 16
say "a supervised start"
[ -e "$work/start/start" ] || python3 "$here/start.py" --model "$model" --train "$train" --val "$held_out" \
    --eval-batch-size 100 --out "$work/start"
say "judging"
python3 "$here/judge.py" --model "$work/start/start" --data "$held_out" --dtype bfloat16 --batch-size 64 \
    --batch-tokens 32768 --batch-sizes 32 64 128 --out "$results/gpu_judge.json"
python3 "$here/judge.py" --model "$work/random-1.7b" --data "$held_out" --dtype bfloat16 --batch-tokens 16384 \
    --modes expected --out "$results/gpu_judge_1700m.json"
say "exact beside grpo"
python3 "$here/exact.py" --model "$work/start/start" --train "$train" --val "$held_out" --grid 1e-5 2e-5 5e-5 \
    --tune-seeds 1 --tune-prompts 60 --jobs 6 --advantage group_mean --batch-size 16 --max-response-length 12 \
    --eval-batch-size 128 --grpo-eval-every 50 --exact-steps 24 --exact-eval-every 2 --dtype bfloat16 \
    --work "$work/exact" --out "$results/gpu_exact_helpsteer2.json"
say "a training step by group size, 1.7B"
step group "$work/random-1.7b" --systems ours trl_bare --micro-batches 16 --repeats 3 --grid group \
    --plot "$results/gpu_train_step_group.png"
say "done"
