#!/usr/bin/env python3
"""Breaks the CUDA kernels one line at a time and reports what share of the breaks the tests catch.

usage: tests/mutate.py BUILD_DIR [--sample N] [--seed N] [--only FILE] [--thread BUILD_DIR] [--list]

Every mutant is one changed operator, constant, index, mask or barrier in the device code of one .cu file, or of a header of theirs, compiled
as host code (the emulation) and run through the tests of the CUDA kernels. A mutant that no test notices is printed with its line, to be judged: an equivalent
(the change means nothing), or a hole in the tests. --thread builds the survivors among the removed barriers again under ThreadSanitizer,
which sees the race even where the values come out right. Development only; needs the objects of `make build/run_tests`.
"""
import argparse
import glob
import os
import random
import re
import shutil
import subprocess
import sys
from collections import Counter

FLAGS = "-std=c++20 -O1 -fno-math-errno -I. -Wno-unknown-pragmas -x c++".split()
# The tests that a file's kernels are under.
FILTERS = {
    "device": "*CudaOps*:*CudaHead*:*CudaSampling*:*CudaSumOfSquares*", "stochastic_rounding": "*CudaAdamW*:*CudaOps*AdamW*",
    "attention": "*CudaAttention*", "lm_head": "*CudaHead*", "sampling": "*CudaSampling*", "matmul": "*CudaMatmul*:*CudaHead*",
    "reveal_block": "CudaReveal*", "column_sums": "*CudaColumnSums*", "value_head": "*CudaColumnSums*",
    "sum_of_squares": "*CudaSumOfSquares*", "pair_loss": "*CudaPairLoss*", "logit_chunk": "*CudaHead*:*CudaSampling*",
    "part_sums": "*CudaColumnSums*:*CudaOps*", "rope": "*CudaRope*:*Qkv*",
}
DEFAULT_FILTER = "*CudaOps*:*CudaAdamW*:*CudaNorms*:*CudaRmsnorm*"
# Headers with device code, and the .cu files that are compiled with a broken one.
HEADERS = {
    "kernels/attention_tile.cuh": ["attention", "attention_backward", "attention_wgmma", "attention_backward_wgmma"],
    "kernels/attention_wgmma.cuh": ["attention_wgmma", "attention_backward_wgmma"],
    "kernels/logit_chunk.cuh": ["lm_head", "sampling"], "kernels/sampling_filter.cuh": ["sampling"],
    "kernels/part_sums.cuh": ["column_sums", "rows"],
    "kernels/device/device.h": ["rmsnorm", "lm_head", "sampling", "sum_of_squares"],
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


def run(command, timeout):
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return None


class Builder:
    def __init__(self, build, flags):
        self.build, self.flags = build, flags
        self.objects = sorted(glob.glob(f"{build}/emulation/kernels/*.o")) + glob.glob(f"{build}/tests/test_cuda_*.o") + \
            glob.glob(f"{build}/emulation/tests/test_*.o")
        self.rest = [f"{build}/kernels/device/cpu_device.o", f"{build}/engine.a"]
        if not all(os.path.exists(f) for f in self.rest) or not self.objects:
            sys.exit(f"tests/mutate.py: no objects in {build}; first type: make {build}/run_tests")
        self.folder = f"{build}/mutant"
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

    def test(self, test_filter):
        """How the program is caught, or None where every test passes."""
        result = run(["setarch", "-R", self.program, f"--gtest_filter={test_filter}", "--gtest_fail_fast", "--gtest_brief=1"], 240)
        if result is None:
            return "hangs"
        if result.returncode == 0:
            return None
        if "data race" in result.stderr:
            return "data race"
        return "reported by the emulation" if "cpu_device:" in result.stderr else "wrong values or a crash"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build")
    parser.add_argument("--sample", type=int, default=100, help="mutants to try, chosen at random; 0: all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", help="one file")
    parser.add_argument("--list", action="store_true", help="print how many mutants every file has, and stop")
    parser.add_argument("--thread", help="build folder of SAN=thread, for barriers whose removal leaves the values right")
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
    if options.sample and options.sample < total:
        mutants = random.Random(options.seed).sample(mutants, options.sample)
    print(f"{total} possible mutants, trying {len(mutants)}", flush=True)

    plain = Builder(options.build, [])
    thread = Builder(options.thread, ["-fsanitize=thread"]) if options.thread else None
    def filter_of(path):
        stem = os.path.basename(path).split(".")[0]
        return next((f for key, f in FILTERS.items() if stem.startswith(key)), DEFAULT_FILTER)

    plain.link({"file": "kernels/swiglu.cu", "text": open("kernels/swiglu.cu").read()})  # what is not broken passes
    for f in sorted({filter_of(m["file"]) for m in mutants}):
        if plain.test(f):
            sys.exit(f"tests/mutate.py: the tests {f} fail without any mutant")
    caught, tried, survivors = 0, 0, []
    for m in mutants:
        test_filter = filter_of(m["file"])
        if not plain.link(m):
            continue
        how = plain.test(test_filter)
        if how is None and "barrier" in m["name"] and thread and thread.link(m):
            how = thread.test(test_filter)
        tried += 1
        caught += how is not None
        if how is None:
            survivors.append(m)
        print(f"{m['file']}:{m['line']}: {m['name']}: {how or 'SURVIVES'}", flush=True)
    print(f"\n{caught} of {tried} caught ({100 * caught / max(tried, 1):.0f}%)")
    for m in survivors:
        print(f"survives: {m['file']}:{m['line']} ({m['name']})\n    was {m['was']}\n    now {m['now']}")


main()
