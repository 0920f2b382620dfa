#!/bin/bash
# run.sh LOG COMMAND...  runs a GoogleTest program, shows only what fails, and ends with a line of real counts.
# A test that ends the program (a crash, a sanitizer's report) counts as failed. Status: 0 only if something passed, nothing failed.
log=$1
shift
GTEST_COLOR=no "$@" "--gtest_filter=${TESTS:-*}" 2>&1 | tee "$log" | awk '
    /^\[ RUN      \]/                       { running = $4; next }
    /^\[       OK \] .*\([0-9]+ ms\)$/      { passed++; running = ""; next }
    /^\[  SKIPPED \] .*\([0-9]+ ms\)$/      { skipped++; running = ""; print; next }
    /^\[  FAILED  \] .*\([0-9]+ ms\)$/      { failed++; running = ""; print; next }
    /^\[----------\]|^\[==========\] Running|^Running main|^$|^\[  (PASSED|FAILED|SKIPPED)|FAILED TESTS?$/ { next }
    { print; fflush() }
    END {
        if (running) { failed++; print "[  FAILED  ] " running " ended the program" }
        printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped
        exit failed > 0 || passed == 0
    }'
status=("${PIPESTATUS[@]}")
[ "${status[0]}" = 0 ] && [ "${status[2]}" = 0 ]
