#!/usr/bin/env python3
"""Breaks the CUDA kernels one line at a time and reports what share of the breaks the tests catch.

usage: tests/mutate.py BUILD_DIR [--sample N] [--seed N] [--only FILE] [--again LOG] [--tests FILTER] [--jobs N] [--address BUILD_DIR] [--thread BUILD_DIR] [--list]

Every mutant is one changed operator, constant, index, mask or barrier in the device code of one .cu file, or of a header of theirs, compiled
as host code (the emulation) and run through the tests of the CUDA kernels. A mutant that no test notices is printed with its line, to be judged: an equivalent
(the change means nothing), or a hole in the tests. --address and --thread build what survives once more under the sanitizers, which the tests are run
under, too: AddressSanitizer sees what is read or written one too far, ThreadSanitizer races where the values come out right.
--again tries what survived in an earlier run, whose output LOG is, and nothing else: with tests that have been added (--tests: with those
alone), or under a sanitizer.
Development only; `make mutate` builds the objects that this needs and begins it.
"""
import argparse
import glob
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from queue import Queue

FLAGS = "-std=c++20 -O1 -fno-math-errno -I. -Wno-unknown-pragmas -x c++".split()
# The tests that a file's kernels are under.
FILTERS = {
    "device": "*CudaOps*:*CudaRmsnorm*:*CudaRope*:*CudaHead*:*CudaSampling*:*CudaSumOfSquares*",
    "attention_rows": "*CudaAttentionRows*:CudaAttention.*:Ragged/CudaAttentionBackward*",
    "attention_wgmma": "*CudaAttentionWgmma*:*CudaAttentionBackward*", "attention_backward_wgmma": "*CudaAttentionBackward*",
    "attention_backward": "*CudaAttentionBackward*:*CudaAttentionMma*", "attention_tile": "*CudaAttention*",
    "attention": "*CudaAttention*-*CudaAttentionWgmma*:*CudaAttentionRows*",
    "lm_head": "*CudaHead*", "sampling": "*CudaSampling*", "logit_chunk": "*CudaHead*:*CudaSampling*", "matmul": "*CudaMatmul*:*CudaHead*",
    "rope": "*CudaRope*:*Qkv*", "rows": "*CudaOps*:*CudaEmbedding*", "part_sums": "*CudaColumnSums*:*CudaEmbedding*",
    "column_sums": "*CudaColumnSums*", "value_head": "*CudaColumnSums*", "sum_of_squares": "*CudaSumOfSquares*",
    "stochastic_rounding": "*CudaAdamW*:*CudaParameters*", "pair_loss": "*CudaPairLoss*", "reveal_block": "CudaReveal*",
}
# Quick ones of them, which are run first: what they catch need not go through the others.
NEAR = {
    "attention_wgmma": "Ragged/CudaAttentionWgmma*", "attention_backward": "Ragged/CudaAttentionBackward*",
    "attention_rows": "*CudaAttentionRows*",
}
DEFAULT_FILTER = "*CudaOps*:*CudaParameters*:*CudaAdamW*:*CudaNorms*:*CudaRmsnorm*"
# How the builds of `make SAN=...` are compiled, in which survivors are tried again.
SANITIZERS = {"address": ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"], "thread": ["-fsanitize=thread"]}
# Headers with device code, and the .cu files that are compiled with a broken one.
HEADERS = {
    "kernels/attention_tile.cuh": ["attention", "attention_backward", "attention_wgmma", "attention_backward_wgmma"],
    "kernels/attention_wgmma.cuh": ["attention_wgmma", "attention_backward_wgmma"],
    "kernels/logit_chunk.cuh": ["lm_head", "sampling"], "kernels/sampling_filter.cuh": ["sampling"],
    "kernels/part_sums.cuh": ["column_sums", "rows"],
    "kernels/device/device.h": ["rmsnorm", "lm_head", "rope", "sampling", "sum_of_squares"],
    "kernels/pair_loss.h": ["pair_loss"],
    "kernels/stochastic_rounding.h": ["adamw"],
}

OPERATORS = [  # name, pattern, replacement; on a line of device code
    ("barrier removed", r"__syncthreads\(\);", ";"),
    ("warp barrier removed", r"__syncwarp\(\);", ";"),
    ("copy not waited for", r"cp_async_wait<(\d)>\(\);", lambda m: f"cp_async_wait<{int(m[1]) + 1}>();"),
    ("product not waited for", r"wgmma_wait<(\d)>\(\);", lambda m: f"wgmma_wait<{int(m[1]) + 1}>();"),
    ("fence removed", r"(fence_proxy_async|wgmma_fence)\(\);", ";"),
    ("named barrier removed", r"named_barrier_(sync|arrive)\(.*\);", ";"),
    ("< to <=", r" < ", " <= "),
    ("<= to <", r" <= ", " < "),
    ("> to >=", r" > ", " >= "),
    (">= to >", r" >= ", " > "),
    ("+ to -", r" \+ ", " - "),
    ("- to +", r" - ", " + "),
    ("* to +", r" \* (?=[a-zA-Z(])", " + "),
    ("/ to *", r" / (?=[a-zA-Z(0-9])", " * "),
    ("+= to =", r" \+= ", " = "),
    ("&& to ||", r" && ", " || "),
    ("factor 2 to 1", r" \* 2\b", " * 1"),
    ("8 to 4", r"\b8\b", "4"),
    ("0 to 1", r"= 0;", "= 1;"),
    ("-infinity to 0", r"-INFINITY", "0.0f"),
    (">> to <<", r" >> ", " << "),
    ("& to |", r" & ", " | "),
    ("| to &", r" \| ", " & "),
    ("% to /", r" % ", " / "),
    ("next element", r"\[([a-z_][a-z_0-9]*)\]", lambda m: f"[{m[1]} + 1]"),
    ("half a warp", r"FULL_WARP", "0xffffu"),
]


def device_lines(text):
    """Indices of the lines between the kernels' banner and the launchers' (what follows the includes where there are no banners)."""
    lines = text.split("\n")
    begin = next((i for i, l in enumerate(lines) if re.match("// ---- (kernels|reductions)", l)), None)
    end = next((i for i, l in enumerate(lines) if l.startswith("// ---- launch")), len(lines))
    if begin is None:
        begin = max(i for i, l in enumerate(lines) if l.startswith("#include")) + 1
    return lines, range(begin, end)


def mutants_of(path):
    lines, device = device_lines(open(path).read())
    for i in device:
        code = lines[i].split("//")[0]
        if not code.strip() or code.lstrip().startswith(("#", "template", "static_assert", "constexpr", "__global__")):
            continue
        for name, pattern, replacement in OPERATORS:
            for match in re.finditer(pattern, code):
                changed = code[:match.start()] + (replacement(match) if callable(replacement) else replacement) + code[match.end():]
                if changed == code:
                    continue
                yield {"file": path, "line": i + 1, "name": name, "was": code.strip(), "now": changed.strip(),
                       "text": "\n".join(lines[:i] + [changed] + lines[i + 1:])}


def filters_of(path, tests):
    """The tests of a file, in the order in which they are run; or those asked for."""
    if tests:
        return [tests]
    stem = os.path.basename(path).split(".")[0]
    near = [f for key, f in NEAR.items() if stem.startswith(key)]
    return near + [next((f for key, f in FILTERS.items() if stem.startswith(key)), DEFAULT_FILTER)]


def survivors_of(log):
    """What a run has printed of its survivors: (file, name, was, now), the line may have moved since."""
    return set(re.findall(r"^(\S+):\d+: ([^:\n]+): SURVIVES\n    was (.*)\n    now (.*)$", open(log).read(), re.MULTILINE))


def run(command, timeout):
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return None


def children_seconds():
    """Of processors, that programs run from here have taken so far: what a limit means on a machine that others use, too."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime


class Builder:
    """The tests in one build, linked with one mutant after another, in a folder of its own for each of several jobs."""

    def __init__(self, build, flags, job):
        self.flags, self.most_seconds = flags, {}
        self.objects = sorted(glob.glob(f"{build}/emulation/kernels/*.o")) + glob.glob(f"{build}/tests/test_cuda_*.o") + \
            glob.glob(f"{build}/emulation/tests/test_*.o")
        self.rest = [f"{build}/kernels/device/cpu_device.o", f"{build}/engine.a"]
        if not all(os.path.exists(f) for f in self.rest) or not self.objects:
            sys.exit(f"tests/mutate.py: no objects in {build}; first type: make BUILD={build} mutate-objects, with the SAN that belongs to it")
        self.folder = f"{build}/mutant{job}"
        self.program = f"{self.folder}/run"
        os.makedirs(self.folder, exist_ok=True)

    def link(self, mutant):
        """The tests with the mutant in place of what it was made of; False where it does not compile."""
        # includes are looked for among the mutants first
        shutil.rmtree(f"{self.folder}/kernels", ignore_errors=True)
        source = f"{self.folder}/{mutant['file']}"
        os.makedirs(os.path.dirname(source))
        open(source, "w").write(mutant["text"])
        units = [f"kernels/{stem}.cu" for stem in HEADERS[mutant["file"]]] if mutant["file"] in HEADERS else [source]
        replaced = [os.path.basename(unit).replace(".cu", ".o") for unit in units]
        objects = [o for o in self.objects if os.path.basename(o) not in replaced]
        compiled = []
        for unit in units:
            out = f"{self.folder}/{os.path.basename(unit)}.o"
            if run(["g++", f"-I{self.folder}"] + FLAGS + self.flags + ["-c", unit, "-o", out], 300).returncode:
                return False
            compiled.append(out)
        # first what was broken: of an inline function the linker takes the first
        link = run(["g++"] + self.flags + compiled + objects + self.rest +
                   ["-lgtest", "-lgtest_main", "-lutf8proc", "-lpthread", "-o", self.program], 300)
        if link.returncode:
            sys.exit(link.stderr)
        return True

    def measure(self, filters):
        """Runs the tests without a mutant: they must pass, and say how long one may take that does not hang."""
        self.link({"file": "kernels/swiglu.cu", "text": open("kernels/swiglu.cu").read()})
        for f in filters:
            begin = children_seconds()
            if self.run_tests(f):
                sys.exit(f"tests/mutate.py: {self.program} --gtest_filter={f}: fails without any mutant")
            self.most_seconds[f] = 10 + 5 * int(children_seconds() - begin)

    def run_tests(self, test_filter):
        """How the program is caught, or None where every test passes."""
        seconds = self.most_seconds.get(test_filter, 1200)
        result = run(["prlimit", f"--cpu={seconds}", "setarch", "-R", self.program, f"--gtest_filter={test_filter}", "--gtest_fail_fast",
                      "--gtest_brief=1"], 20 * seconds)
        if result is None or result.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
            return "hangs"
        if result.returncode == 0:
            return None
        for text, how in (("data race", "data race"), ("AddressSanitizer", "out of bounds"), ("runtime error", "undefined behaviour"),
                          ("cpu_device:", "reported by the emulation")):
            if text in result.stderr:
                return how
        return "wrong values or a crash"

    def catch(self, mutant, filters):
        """How the mutant is caught, "" where it is not, None where it does not compile."""
        if not self.link(mutant):
            return None
        return next(filter(None, map(self.run_tests, filters)), "")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build")
    parser.add_argument("--sample", type=int, default=100, help="mutants to try, chosen at random; 0: all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", help="one file")
    parser.add_argument("--again", metavar="LOG", help="the survivors of an earlier run, instead of a sample")
    parser.add_argument("--tests", metavar="FILTER", help="of GoogleTest, instead of all that a file is under")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="mutants at a time")
    parser.add_argument("--list", action="store_true", help="print how many mutants every file has, and stop")
    for name in SANITIZERS:
        parser.add_argument(f"--{name}", metavar="BUILD_DIR", help=f"build folder of SAN={name}, for what survives")
    options = parser.parse_args()

    files = [options.only] if options.only else sorted(glob.glob("kernels/*.cu")) + list(HEADERS)
    host_only = ("cuda_ops", "cuda_indices", "linear", "matmul_cublaslt", "cublaslt_absent")
    mutants = [m for f in files if os.path.basename(f).split(".")[0] not in host_only for m in mutants_of(f)]
    total = len(mutants)
    if options.list:
        counts = {name: sum(m["name"] == name for m in mutants) for name, _, _ in OPERATORS}
        for counted in (Counter(m["file"] for m in mutants), counts):
            for key, n in counted.items():
                print(f"{n:6}  {key}")
            print()
        print(f"{total:6}  in all")
        return
    if options.again:
        wanted = survivors_of(options.again)
        mutants = [m for m in mutants if (m["file"], m["name"], m["was"], m["now"]) in wanted]
    elif options.sample and options.sample < total:
        mutants = random.Random(options.seed).sample(mutants, options.sample)
    print(f"{total} possible mutants, trying {len(mutants)}", flush=True)

    filters = sorted({f for m in mutants for f in filters_of(m["file"], options.tests)})
    builds = [(options.build, [])] + [(getattr(options, name), flags) for name, flags in SANITIZERS.items() if getattr(options, name)]
    jobs = [[Builder(build, flags, job) for build, flags in builds] for job in range(options.jobs)]
    for first, *others in zip(*jobs):
        first.measure(filters)
        for builder in others:
            builder.most_seconds = first.most_seconds
    idle = Queue()
    for job in jobs:
        idle.put(job)

    def attempt(mutant):
        builders = idle.get()
        try:
            caught = (builder.catch(mutant, filters_of(mutant["file"], options.tests)) for builder in builders)
            return next((how for how in caught if how != ""), "")
        finally:
            idle.put(builders)

    caught, tried = 0, 0
    with ThreadPoolExecutor(options.jobs) as pool:
        for m, how in zip(mutants, pool.map(attempt, mutants)):
            if how is None:
                continue
            tried += 1
            caught += how != ""
            print(f"{m['file']}:{m['line']}: {m['name']}: {how or 'SURVIVES'}", flush=True)
            if not how:
                print(f"    was {m['was']}\n    now {m['now']}", flush=True)
    print(f"\n{caught} of {tried} caught ({100 * caught / max(tried, 1):.0f}%)")


main()
