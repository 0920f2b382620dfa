#!/bin/bash
# Everything there is to know about the CUDA kernels on this machine's GPU, in one file.
# usage: tests/gpu_report.sh [FOLDER of run_gpu_tests and bench_cuda] [REPORT]
# Needs nothing but a driver (both programs link GoogleTest and the CUDA runtime statically) and cuBLASLt's library; the programs of the
# root and compute-sanitizer are used where they are.
cd "$(dirname "$0")/.." || exit 1
folder=${1:-build}
report=${2:-gpu-report.txt}
failed=0

section() { echo; echo "==== $*"; }
step() {  # runs a command, with its time and its verdict
    local start=$SECONDS
    echo "\$ $*"
    "$@"
    local code=$?
    echo "-- exit $code after $((SECONDS - start)) s"
    [ $code = 0 ] || failed=$((failed + 1))
}

{
    echo "GPU report, $(date -u +%Y-%m-%dT%H:%MZ), commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown)"
    section "device"
    nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit --format=csv || { echo "no GPU here"; exit 1; }

    section "tests"
    step "$folder/run_gpu_tests" --gtest_brief=1

    sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null)
    if [ "$sanitizer" ]; then
        for tool in memcheck racecheck synccheck; do
            section "compute-sanitizer $tool"
            step "$sanitizer" --tool $tool --error-exitcode 9 "$folder/run_gpu_tests" --gtest_brief=1
        done
    else
        section "compute-sanitizer is not installed: memcheck and racecheck were not run"
    fi

    section "bench"
    step "$folder/bench_cuda"

    section "$failed of the steps failed"
    exit $((failed > 0))
} 2>&1 | tee "$report"
exit "${PIPESTATUS[0]}"
