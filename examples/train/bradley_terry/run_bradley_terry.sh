#!/usr/bin/env bash
# Train the scalar model; every hyper-parameter is in train.yaml beside this file. From any folder:
#   ./run_bradley_terry.sh                                     one process
#   N_GPUS_PER_NODE=8 ./run_bradley_terry.sh                   one process for each of 8 GPUs, through accelerate
#   TIMESTAMP=1120T0912 ./run_bradley_terry.sh --resume        go on with checkpoints/1120T0912
#   ./run_bradley_terry.sh --dry-run --set train.max_steps=10  arguments go on to `rmg train`
# From the environment, where set: TRAIN_FILE, VAL_FILE, MODEL_PATH, N_GPUS_PER_NODE, TIMESTAMP.
set -euo pipefail

here=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
root=$(CDPATH='' cd -- "$here/../../.." && pwd)
exports=$root/examples/data/exports
TRAIN_FILE=${TRAIN_FILE:-$exports/helpsteer2_pairwise_train.parquet}
VAL_FILE=${VAL_FILE:-$exports/helpsteer2_pairwise_test.parquet}
TIMESTAMP=${TIMESTAMP:-$(date +%m%dT%H%M)}

stop() {
  echo "error: $1" >&2
  exit 1
}

command -v rmg >/dev/null || stop "there is no command rmg: activate its environment, or pip install -e '.[train]' in the checkout"
for file in "$TRAIN_FILE" "$VAL_FILE"; do
  [[ -f $file ]] || stop "there is no file $file: make it with (cd $root && rmg data convert --config examples/train/bradley_terry/data_config.yaml), or name another by TRAIN_FILE and VAL_FILE"
done

options=(--out "checkpoints/$TIMESTAMP" --set "data.train=$TRAIN_FILE" --set "data.val=$VAL_FILE")
[[ -z ${MODEL_PATH:-} ]] || options+=(--set "model.path=$MODEL_PATH")
launch=(rmg)
[[ ${N_GPUS_PER_NODE:-1} == 1 ]] || launch=(accelerate launch --num_processes "$N_GPUS_PER_NODE" -m rm_gallery)

exec "${launch[@]}" train "$here/train.yaml" "${options[@]}" "$@"
