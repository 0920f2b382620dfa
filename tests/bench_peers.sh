#!/bin/bash
# bench_peers.sh -- the same work by PyTorch and transformers, beside ours: updates and generation, as ratios.
#   tests/bench_peers.sh FOLDER_OF_BENCHES     (make bench runs it; the programs are in PROGRAMS, ./)
# PYTHON (python3) has to have torch, transformers and safetensors; ORACLE (../shared/oracle) has to have bench_torch.py and
# bench_torch_generate.py, which say what they do. Where either is missing nothing is compared. THREADS (2) for both.
# Takes minutes: at `small` the padded layout of 32 responses alone takes two.
set -euo pipefail
benches=$1
PYTHON=${PYTHON:-python3} PROGRAMS=${PROGRAMS:-./} ORACLE=${ORACLE:-../shared/oracle} THREADS=${THREADS:-2}
for peer in bench_torch.py bench_torch_generate.py; do
    [ -f "$ORACLE/$peer" ] || { echo "peers   left out: no $ORACLE/$peer"; exit 0; }
done
"$PYTHON" -c 'import torch, transformers, safetensors' 2>/dev/null ||
    { echo "peers   left out: $PYTHON has not torch, transformers and safetensors (PYTHON=... names another)"; exit 0; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

number() { grep -o "\"$1\": *[0-9.e+-]*" | head -1 | sed 's/.*: *//'; }  # of a JSON line
short() { printf %.2f "$1"; }
ratio() { awk "BEGIN { printf \"%.2f\", $1 / $2 }"; }

for preset in tiny mini small; do
    "$PROGRAMS"convert init --preset $preset --tokenizer bytes --seed 1 --progress none --out "$work/$preset" >/dev/null
done

# One update: forward, loss, backward, no optimizer. 32 responses, of prompts of their own and of 4 prompts.
for preset in mini small; do
    for per_prompt in 1 8; do
        "$benches/bench_update" records 32 $per_prompt >"$work/records.jsonl"
        ours=$("$PROGRAMS"train_tracerl --device cpu --threads "$THREADS" --progress none --model "$work/$preset" \
            --replay "$work/records.jsonl" --keep-accuracy all | number update_s)
        line="update     $preset, 32 responses, $per_prompt to a prompt: $(short "$ours") s"
        for layout in dllm-rl packed; do
            [ $layout$per_prompt = dllm-rl8 ] && continue  # it shares no prompts: the same again
            theirs=$("$PYTHON" "$ORACLE/bench_torch.py" --model "$work/$preset" --replay "$work/records.jsonl" \
                --layout $layout --threads "$THREADS" --repeat 1 2>"$work/why" | number seconds) ||
                { line+="; PyTorch, $layout layout, fails: $(tail -1 "$work/why")"; continue; }
            line+="; PyTorch, $layout layout: $(short "$theirs") s, $(ratio "$theirs" "$ours") times ours"
        done
        echo "$line"
    done
done

# Generation: prompt of 64, 128 tokens, B 4, static, one token per step, greedy.
for run in "tiny float32" "mini float32" "small float32" "small bfloat16"; do
    read -r preset dtype <<<"$run"
    vocabulary=$(number vocab_size <"$work/$preset/config.json")
    prompt=$(seq -s, 0 63 | awk -F, -v n=$((vocabulary / 2)) '{ for (i = 1; i <= NF; i++) printf "%s%d", (i > 1 ? "," : ""), 1 + $i % n }')
    [ $dtype = bfloat16 ] && ours_dtype=bf16 || ours_dtype=fp32
    ours=$("$PROGRAMS"infer --device cpu --threads "$THREADS" --model "$work/$preset" --dtype $ours_dtype --prompt-ids "$prompt" \
        --gen-length 128 --block 4 --steps 4 --remasking low_confidence_static --ignore-eos --json 2>/dev/null)
    ours=$(awk "BEGIN { printf \"%.1f\", 128 / ($(number prefill_s <<<"$ours") + $(number generate_s <<<"$ours")) }")
    theirs=$("$PYTHON" "$ORACLE/bench_torch_generate.py" --model "$work/$preset" --prompt-length 64 --gen-length 128 --block 4 \
        --steps 4 --threads "$THREADS" --dtype $dtype 2>"$work/why" | number tokens_per_second) ||
        { echo "generation $preset $ours_dtype: $ours tokens/s; PyTorch fails: $(tail -1 "$work/why")"; continue; }
    echo "generation $preset $ours_dtype: $ours tokens/s; PyTorch: $(short "$theirs"), $(ratio "$ours" "$theirs") times as many"
done
