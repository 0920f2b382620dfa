#!/bin/bash
# study.sh FOLDER SEED...  what TraceRL claims, at a size that a CPU finishes: states of the trace against random and coupled masks,
# with and without a value model, and larger blocks in two phases. Two-digit sums with their working, a warm start for each seed and then
# the same rollouts for all. One core, about 20 minutes a seed; what is there already is not run again. Ends with a table of
# accuracies in percent (dynamic sampling, held-out problems) and a page of curves. FLAGS: more options for every run.
cd "$(dirname "$0")/.." || exit 1
folder=${1:?usage: study.sh FOLDER SEED...}
shift
mkdir -p "$folder" || exit 1

# run NAME OPTION...: a run folder of that name, begun or gone on with
run() {
    local out="$folder/$1"
    shift
    local options="$* --device cpu --threads 1 $FLAGS --out $out"
    [ -e "$out/latest" ] && options="--resume $out"
    # shellcheck disable=SC2086  # options are words
    ./train_tracerl $options --progress none >"$out.log" 2>&1 || { cat "$out.log" && exit 1; }
}
newest() { echo "$folder/$1/$(cat "$folder/$1/latest")"; }

sums="--task arithmetic:digits=2,working=totals --gen-length 12 --eval-problems 256"
for seed in "$@"; do
    here="--config train/configs/default.toml $sums --seed $seed"
    run "warm-$seed" "$here --sft-eval-every 25 --total-steps 0"
    here="$here --model $(newest "warm-$seed") --sft-steps 0 --total-steps 48 --eval-every 12"
    run "tracerl-$seed" "$here"
    run "tracerl-value-$seed" "$here --value-model init --value-lr 5e-4"
    run "random-$seed" "$here --objective random-masking --masks 2"
    run "coupled-$seed" "$here --objective coupled"

    here="--config train/configs/enlarge_arithmetic.toml --seed $seed"
    small="$here --train-block 0 --enlarge-at 0 --total-steps 0 --eval-every 0"
    run "b4-$seed" "$small --sft-steps 1000"
    run "b8-$seed" "$small --model $(newest "b4-$seed") --block 8 --sft-steps 25 --sft-until 1 --sft-schedule constant --sft-warmup 0 --sft-lr 5e-4"
    here="$here --model $(newest "b8-$seed")"
    run "two-phase-$seed" "$here"
    run "direct-$seed" "$here --block 8 --train-block 0 --enlarge-at 0"
done

echo "accuracy before, and after every evaluation"
for seed in "$@"; do
    for name in tracerl tracerl-value random coupled two-phase direct; do
        printf '%-18s' "$name-$seed"
        sed -n -E 's/^(before RL|RL step|after RL).*, ([0-9.]+)% dynamic.*/\2/p' "$folder/$name-$seed/main.log" | tr '\n' ' '
        echo
    done
done
# shellcheck disable=SC2046  # no folder of a study has a space in its name
./train_tracerl plot $(for seed in "$@"; do for name in tracerl tracerl-value random coupled; do echo "$folder/$name-$seed"; done; done) \
    --out "$folder/comparison.html"
