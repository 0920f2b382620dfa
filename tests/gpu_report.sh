#!/bin/bash
# Everything there is to know about the CUDA kernels on this machine's GPU, in one file.
# usage: tests/gpu_report.sh [FOLDER [REPORT [PART...]]]
#   FOLDER  of run_gpu_tests, bench_cuda and bench_model (build); REPORT: gpu-report.txt
#   PART    tests golden bench models memcheck racecheck synccheck; all of them, in this order, where none is named
# Needs nothing but a driver (the programs link GoogleTest and the CUDA runtime statically) and cuBLASLt's library; compute-sanitizer is
# used where it is, the golden files where they are: ../shared/fixtures or FOLDER/fixtures. Tests run in SHARDS processes at once (as
# many as there are cores, at most 14; 1 where a GPU takes one process at a time). A process that takes longer than LIMIT seconds
# (3600; half of WITHIN) is stopped, and its step has failed. Where WITHIN is given (a lease of a GPU may be short) all of it ends
# in so many seconds: what still runs is stopped, what has not begun is left out, and either has failed.
cd "$(dirname "$0")/.." || exit 1
folder=${1:-build}
report=${2:-gpu-report.txt}
parts=${*:3}
parts=${parts:-tests golden bench models memcheck racecheck synccheck}
failed=()
SHARDS=${SHARDS:-$(n=$(nproc); echo $((n < 14 ? n : 14)))}

section() { echo; echo "==== $*"; }
step() {  # runs a command, with its time and its verdict
    local start=$SECONDS code=124
    echo "\$ $*"
    if (($(left) > 0)); then "$@"; code=$?; else echo "no time is left for it"; fi
    echo "-- exit $code after $((SECONDS - start)) s"
    [ $code = 0 ] || failed+=("$part")
}
left() { echo $((${WITHIN:-1000000} - 12 - SECONDS)); }  # seconds, but for what it takes to stop a process
limited() {
    local limit=${LIMIT:-$((${WITHIN:-7200} / 2))} most
    most=$(left)
    timeout -k 10 $((most < 1 ? 1 : most < limit ? most : limit)) "$@"
}
unfinished() {  # LOG: the test that was running when its process ended
    awk '/^\[ RUN      \]/ { test = $4 } /^\[ +(OK|FAILED|SKIPPED) +\] .*\([0-9]+ ms\)$/ { test = "" } END { print test }' "$1"
}
said() {  # LOG: of a long text the beginning and the end
    grep -vE '^\[ +(RUN|OK|SKIPPED) |^\[-+\]|^$' "$1" >"$1.said"
    if (($(wc -l <"$1.said") > 80)); then head -40 "$1.said"; echo ...; tail -40 "$1.said"; else cat "$1.said"; fi
    rm -f "$1.said"
}
verdicts() {  # LOGS VERDICT: the tests that have it
    cat "$1"/* | sed -nE "s/^\[ +($2) +\] ([^ ,]+).* \([0-9]+ ms\)\$/\2/p" | sort -u
}
# FILTER [COMMAND...]: the tests of the filter, in shards, under the command; what went wrong, and how many passed. What an ended
# process did not run, and what failed, perhaps because of a test before it, is run again, each test in a process of its own.
tests() {
    local filter=$1 i jobs=() code=0 again=() test logs
    logs=$(mktemp -d)
    for ((i = 0; i < SHARDS; i++)); do
        GTEST_TOTAL_SHARDS=$SHARDS GTEST_SHARD_INDEX=$i limited "${@:2}" "$folder/run_gpu_tests" --gtest_filter="$filter" >"$logs/$i" 2>&1 &
        jobs+=($!)
    done
    for ((i = 0; i < SHARDS; i++)); do
        wait "${jobs[i]}"
        local shard=$?
        [ $shard = 0 ] && continue
        code=$shard
        echo "shard $i of $SHARDS: exit $shard; what it said, of a long text the beginning and the end:"
        said "$logs/$i"
        test=$(unfinished "$logs/$i")
        [ "$test" ] && echo "it $( ((shard == 124 || shard == 137)) && echo "was stopped" || echo ended) in $test"
    done
    grep -h "repeats no recordings" "$logs"/* | sort -u
    cat "$logs"/* | grep -qE '^\[ +(OK|FAILED) ' || { echo "no test ran"; code=1; }
    if [ $code != 0 ] && (($(left) > 0)); then
        mapfile -t again < <(comm -23 <("$folder/run_gpu_tests" --gtest_list_tests --gtest_filter="$filter" 2>/dev/null |
            awk '/^[^ ].*\.$|^[^ ].*\.  #/ { suite = $1 } /^  / { print suite $1 }' | sort -u) \
            <({ verdicts "$logs" "OK|SKIPPED"; for log in "$logs"/*; do unfinished "$log"; done; } | sort -u))
        ((${#again[@]} > 200)) && again=()  # nothing works
        for test in "${again[@]}"; do
            (($(left) > 0)) || break
            (($(jobs -rp | wc -l) < SHARDS)) || wait -n
            { limited "${@:2}" "$folder/run_gpu_tests" --gtest_filter="$test" || echo "exit $?"; } >"$logs/alone.${test//\//-}" 2>&1 &
        done
        wait
        for test in "${again[@]}"; do
            local log=$logs/alone.${test//\//-}
            if grep -qs '^exit ' "$log"; then echo "alone, too, $test fails:"; said "$log" | tail -20; fi
        done
    fi
    local passed skipped all
    passed=$(verdicts "$logs" OK | wc -l) skipped=$(verdicts "$logs" SKIPPED | wc -l)
    all=$("$folder/run_gpu_tests" --gtest_list_tests --gtest_filter="$filter" 2>/dev/null | grep -c '^  ')
    echo "$passed passed, $((all - passed - skipped)) failed or did not end, $skipped skipped"
    rm -rf "$logs"
    return $code
}

# cuBLASLt of the toolkit the programs were linked with; elsewhere, wherever this machine has one of the same major version.
missing=$(ldd "$folder/run_gpu_tests" 2>/dev/null | awk '/libcublasLt.*not found/ { print $1 }')
if [ "$missing" ]; then
    found=$(find /usr /opt / -xdev -name "$missing" 2>/dev/null | head -1)
    [ "$found" ] && export LD_LIBRARY_PATH="$(dirname "$found")${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
fi
for FIXTURES in ../shared/fixtures "$folder/fixtures" ""; do [ -d "$FIXTURES" ] && break; done
export FIXTURES
sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null)

{
    echo "GPU report, $(date -u +%Y-%m-%dT%H:%MZ), commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown)"
    section "device"
    timeout 60 nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit --format=csv || [ -e /dev/nvidiactl ] || { echo "no GPU here"; exit 1; }
    [ "$missing" ] && echo "$missing: ${found:-not here; install the CUDA toolkit that the programs were built with}"

    for part in $parts; do
        case $part in
        tests)
            section "tests of the kernels, of the network, and of generation without the host in a block's steps"
            step tests '-*CudaGolden*'
            ;;
        golden)
            if [ "$FIXTURES" ]; then
                section "golden files in fp32 and bf16; rollout log-prob = training log-prob"
                step tests '*CudaGolden*'
            else
                section "neither ../shared/fixtures nor $folder/fixtures is here: the golden files were not compared"
            fi
            ;;
        bench)
            section "bench of single operations"
            step limited "$folder/bench_cuda"
            ;;
        models)
            section "bench of updates and rollouts"
            step limited "$folder/bench_model" --device cuda
            ;;
        memcheck | racecheck | synccheck)
            if [ "$sanitizer" ]; then
                section "compute-sanitizer $part, of our kernels"  # cuBLASLt's are not ours to mend
                turn=()
                [ "$part" = racecheck ] && turn=(KERNELS_IN_TURN=1)  # why: device.h
                step tests '-*CudaGolden.Generates*:LoopGraphTest.*:CudaReveal.ARecording*' env LOOPS_ON_HOST=1 "${turn[@]}" \
                    "$sanitizer" --tool "$part" --kernel-name kns=4cuda --error-exitcode 9
            else
                section "compute-sanitizer is not installed: $part was not run"
            fi
            ;;
        *)
            section "there is no part $part"
            failed+=("$part")
            ;;
        esac
    done

    section "${#failed[@]} steps failed${failed:+: ${failed[*]}}"
    exit $((${#failed[@]} > 0))
} 2>&1 | tee "$report"
exit "${PIPESTATUS[0]}"
