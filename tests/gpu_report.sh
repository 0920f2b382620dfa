#!/bin/bash
# Everything there is to know about the CUDA kernels on this machine's GPU, in one file.
# usage: tests/gpu_report.sh [FOLDER of run_gpu_tests, bench_cuda and bench_model] [REPORT]
# Needs nothing but a driver (the programs link GoogleTest and the CUDA runtime statically) and cuBLASLt's library; compute-sanitizer is
# used where it is, the golden files where they are.
cd "$(dirname "$0")/.." || exit 1
folder=${1:-build}
report=${2:-gpu-report.txt}
failed=0
RUN_GPU_TESTS="$folder/run_gpu_tests --gtest_brief=1"

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

    section "tests of the kernels and of the network"
    step $RUN_GPU_TESTS --gtest_filter='-*CudaGolden*:*CudaEngine*'
    section "generation: what the CPU generates, the steps of a block without the host"
    step $RUN_GPU_TESTS --gtest_filter='*CudaEngine*'
    if [ -d ../shared/fixtures ]; then
        section "golden files in fp32 and bf16; rollout log-prob = training log-prob"
        step $RUN_GPU_TESTS --gtest_filter='*CudaGolden*'
    else
        section "../shared/fixtures is not here: the golden files were not compared"
    fi

    sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null)
    if [ "$sanitizer" ]; then
        for tool in memcheck racecheck synccheck; do
            section "compute-sanitizer $tool"
            step "$sanitizer" --tool $tool --error-exitcode 9 $RUN_GPU_TESTS --gtest_filter='-*CudaGolden.Generates*'
        done
    else
        section "compute-sanitizer is not installed: memcheck and racecheck were not run"
    fi

    section "bench of single operations"
    step "$folder/bench_cuda"
    section "bench of updates and rollouts"
    step "$folder/bench_model" --device cuda

    section "$failed of the steps failed"
    exit $((failed > 0))
} 2>&1 | tee "$report"
exit "${PIPESTATUS[0]}"
