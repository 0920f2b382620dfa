#!/bin/bash
# soak.sh PROGRAM KILLS [SEED]  stops a small run KILLS times at random moments, by SIGINT, SIGTERM and kill -9, resumes it each
# time, and compares what comes out with the same run left alone: weights, optimizer and state byte for byte, metrics but for times.
# A run that comes to its end before all kills are spent is checked and begun again. Status 0: all were equal.
program=$1 kills=$2 RANDOM=${3:-1}
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
fail() { echo "soak: $*"; exit 1; }
# A body of width 16, so that weights are small beside what is kept of a run.
"$(dirname "$program")/convert" init --preset tiny --tokenizer bytes --set hidden_size=16 --set intermediate_size=24 \
    --set num_hidden_layers=2 --set head_dim=8 --set num_attention_heads=2 --set num_key_value_heads=1 \
    --set max_position_embeddings=64 --out "$folder/model" >/dev/null 2>&1 || fail "convert init failed"
options="--progress none --quiet --device cpu --threads 1 --seed 3 --task arithmetic:digits=1,working=off --gen-length 6 --block 4
    --model $folder/model --sft-steps 40 --sft-batch 8 --sft-lr 1e-2 --sft-eval-every 10 --sft-eval-problems 4 --total-steps 12
    --tasks 2 --responses 8 --epochs 2 --keep-accuracy all --eval-problems 4 --eval-every 5 --save-every 1 --value-model init"

without_times() { sed -E 's/"([a-z_]+_s|seconds|memory_mib)":[^,}]*[,}]//g' "$1/metrics.jsonl"; }
compare() {
    diff -r "$folder/whole/$(cat "$folder/whole/latest")" "$folder/cut/$(cat "$folder/cut/latest")" || fail "checkpoints differ"
    diff <(without_times "$folder/whole") <(without_times "$folder/cut") || fail "metrics differ"
    [ "$(ls "$folder/whole/samples")" = "$(ls "$folder/cut/samples")" ] || fail "samples differ"
}

begin=$(date +%s%N)
$program $options --out "$folder/whole" >/dev/null || fail "the run left alone ended with $?"
grep -q '"updates":[1-9]' "$folder/whole/metrics.jsonl" || fail "the run trains nothing"
lasted=$((($(date +%s%N) - begin) / 1000000)) # ms
[ $lasted -le 3000 ] || lasted=3000 # on a machine that is busy: it has work of a few hundred

spent=0 ended=0 starts=0 signals=(INT TERM KILL)
declare -A count
while [ $spent -lt $kills ]; do
    [ $((++starts)) -le $((20 * kills + 20)) ] || fail "no end after $starts starts"
    if [ -e "$folder/cut/latest" ]; then arguments="--resume $folder/cut --progress none"; else
        rm -rf "$folder/cut"
        arguments="$options --out $folder/cut"
    fi
    $program $arguments >/dev/null 2>"$folder/errors" &
    pid=$!
    # anywhere in the first two thirds of what the whole run takes
    delay=$((lasted * 2 / 3 * RANDOM / 32768))
    sleep "$((delay / 1000)).$(printf %03d $((delay % 1000)))"
    signal=${signals[RANDOM % 3]}
    kill -"$signal" $pid 2>/dev/null
    wait $pid 2>/dev/null
    code=$?
    case $code in
    0) compare; rm -rf "$folder/cut"; ended=$((ended + 1)) ;; # over before the signal came
    130 | 143 | 137) spent=$((spent + 1)) count[$code]=$((${count[$code]:-0} + 1)) ;;
    *) cat "$folder/errors"; fail "ended with $code after SIG$signal" ;;
    esac
done
if [ -e "$folder/cut/latest" ]; then
    $program --resume "$folder/cut" --progress none >/dev/null 2>"$folder/errors" || { cat "$folder/errors"; fail "the last resume failed"; }
    compare
fi
echo "soak: $kills kills (${count[130]:-0} SIGINT, ${count[143]:-0} SIGTERM, ${count[137]:-0} SIGKILL), $((ended + 1)) runs, all as if they had been left alone"
