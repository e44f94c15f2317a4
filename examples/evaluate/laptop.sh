#!/usr/bin/env bash
# An untouched SmolLM2-135M, and the judges that the two recipes make of it on a laptop, on four benchmarks: one report.
# From the repository's root; docs/example_report.md shows what it gives:
#   DATA=~/data examples/evaluate/laptop.sh                 all of it: some two hours on two cores
#   DATA=~/data examples/evaluate/laptop.sh pointwise       one part: untouched, pointwise, pairwise or report
# Stopped, it goes on where it was when called again.
set -euo pipefail

DATA=${DATA:-$HOME/data}          # with HelpSteer2 as examples/train/*/data_config.yaml have it
RM_BENCH=${RM_BENCH:-$DATA/rm_bench}
JUDGEBENCH=${JUDGEBENCH:-$DATA/judgebench}
LLMBAR=${LLMBAR:-$DATA/llmbar}
OUT=${OUT:-runs/laptop}
ROWS=examples/data/exports
BASE=models/smollm2-135m-instruct

train() { # TASK METHOD START SETTING...: nothing where it is done, the rest where it was stopped
  local run="$OUT/$1-$2" task=$1 method=$2 start=$3
  shift 3
  [ -e "$run/actor_latest" ] && [ -e "$run/.done" ] && return
  local resume=()
  [ -e "$run/config.yaml" ] && resume=(--resume)
  rmg train "examples/train/$task/train.yaml" --out "$run" "${resume[@]}" --set "method=$method" \
    --set "model.path=$start" --set data.val=null "$@"
  touch "$run/.done"
}

evaluate() { # NAME MODEL ARGUMENT...: `rmg eval` goes on by itself
  local out="$OUT/$1" model=$2
  shift 2
  [ -e "$out/metrics.json" ] || rmg eval --model "$model" --mode expected --dtype auto --out "$out" "$@"
}

benchmarks() { # NAME MODEL TASK
  evaluate "$1-helpsteer2" "$2" --task "$3" --data "$ROWS/helpsteer2_$3_test.parquet" --train "$ROWS/helpsteer2_$3_train.parquet"
  evaluate "$1-judgebench" "$2" --task "$3" --benchmark judgebench --path "$JUDGEBENCH"
  evaluate "$1-llmbar" "$2" --task "$3" --benchmark llmbar --path "$LLMBAR"
  evaluate "$1-rm_bench" "$2" --task "$3" --benchmark rm_bench --path "$RM_BENCH"
}

[ -e "$BASE" ] || rmg models fetch smollm2-135m-instruct
for task in pointwise pairwise; do
  [ -e "$ROWS/helpsteer2_${task}_test.parquet" ] || rmg data convert --config "examples/train/$task/data_config.yaml"
done

# a supervised start, since the untouched model writes no verdict, then some steps of GRPO: both in minutes
sft=(--set train.batch_size=20 --set train.mini_batch_size=20 --set train.micro_batch_size=4 --set train.learning_rate=1.2e-4)
grpo=(--set train.batch_size=4 --set train.mini_batch_size=4 --set train.micro_batch_size=2 --set train.learning_rate=5e-6
  --set train.max_steps=8 --set rollout.n=8 --set rollout.max_response_length=16)
untouched() {
  benchmarks untouched "$BASE" pointwise
}
pointwise() {
  train pointwise sft "$BASE" "${sft[@]}" --set data.max_prompt_length=512 --set data.limit=640
  train pointwise grpo "$OUT/pointwise-sft/actor_latest" "${grpo[@]}" --set data.max_prompt_length=512 --set data.limit=96
  benchmarks pointwise "$OUT/pointwise-grpo/actor_latest" pointwise
}
pairwise() {
  train pairwise sft "$BASE" "${sft[@]}" --set data.max_prompt_length=768 --set data.limit=300
  train pairwise grpo "$OUT/pairwise-sft/actor_latest" "${grpo[@]}" --set data.max_prompt_length=768 --set data.limit=64
  benchmarks pairwise "$OUT/pairwise-grpo/actor_latest" pairwise
}
report() {
  rmg report "$OUT"/{untouched,pointwise,pairwise}-{helpsteer2,judgebench,llmbar,rm_bench} \
    "$OUT"/{pointwise,pairwise}-{sft,grpo} --no-texts --out "$OUT/report.html"
}
for part in "${@:-untouched pointwise pairwise report}"; do
  for each in $part; do "$each"; done
done
