#!/usr/bin/env bash
# Train the pointwise judge with verl; every hyper-parameter is in train.yaml beside this file. From any folder:
#   ./run_pointwise.sh                                             one node, 8 GPUs
#   ADDRESS=http://127.0.0.1:8265 N_NODES=4 ./run_pointwise.sh     a Ray cluster, by the address of its dashboard
#   TIMESTAMP=1120T0912 ./run_pointwise.sh --resume                go on with checkpoints/1120T0912
#   ./run_pointwise.sh --dry-run --set train.max_steps=10          arguments go on to `rmg train`
# From the environment, where set: TRAIN_FILE, VAL_FILE, MODEL_PATH, N_GPUS_PER_NODE, N_NODES, ADDRESS, TIMESTAMP.
set -euo pipefail

here=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
root=$(CDPATH='' cd -- "$here/../../.." && pwd)
exports=$root/examples/data/exports
TRAIN_FILE=${TRAIN_FILE:-$exports/helpsteer2_pointwise_train.parquet}
VAL_FILE=${VAL_FILE:-$exports/helpsteer2_pointwise_test.parquet}
ADDRESS=${ADDRESS:-}
TIMESTAMP=${TIMESTAMP:-$(date +%m%dT%H%M)}

stop() {
  echo "error: $1" >&2
  exit 1
}

command -v rmg >/dev/null || stop "there is no command rmg: activate its environment, or pip install -e '.[verl]' in the checkout"
for file in "$TRAIN_FILE" "$VAL_FILE"; do
  [[ -f $file ]] && continue
  if [[ -n $ADDRESS ]]; then # it may lie where only the cluster sees it
    echo "note: $file is not on this machine; the cluster's nodes must see it under that path" >&2
  else
    stop "there is no file $file: make it with (cd $root && rmg data convert --config examples/train/pointwise/data_config.yaml), or name another by TRAIN_FILE and VAL_FILE"
  fi
done
# a path, and no hub id
if [[ -z $ADDRESS && ${MODEL_PATH:-} == [./]* && ! -d $MODEL_PATH ]]; then
  stop "there is no folder $MODEL_PATH, which MODEL_PATH names"
fi

# this folder's dataset.py and reward_fn.py: what you change there has effect
options=(
  --engine verl --out "checkpoints/$TIMESTAMP"
  --set "data.train=$TRAIN_FILE" --set "data.val=$VAL_FILE"
  --set "verl.data.custom_cls.path=$here/dataset.py"
  --set verl.data.custom_cls.name=HelpfulnessPointwiseTrainDataset
  --set "verl.reward.custom_reward_function.path=$here/reward_fn.py"
  --set verl.reward.custom_reward_function.name=compute_score
)
[[ -z ${MODEL_PATH:-} ]] || options+=(--set "model.path=$MODEL_PATH")
[[ -z ${N_GPUS_PER_NODE:-} ]] || options+=(--set "verl.trainer.n_gpus_per_node=$N_GPUS_PER_NODE")
[[ -z ${N_NODES:-} ]] || options+=(--set "verl.trainer.nnodes=$N_NODES")
[[ -z $ADDRESS ]] || options+=(--address "$ADDRESS")

exec rmg train "$here/train.yaml" "${options[@]}" "$@"
