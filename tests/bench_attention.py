#!/usr/bin/env python3
"""The peer of bench_cuda's attention: PyTorch's flex_attention, compiled, on the same layouts (spans of two ranges a token) and shapes.
   bench_attention.py [T ...]        bf16, heads of 128; medians of 10, each behind a flush of the L2 cache
Visible pairs alone count as work, as there: 4 operations a pair, query head and channel forward, 2.5 times that backward."""
import statistics
import sys

import torch
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

NH, NKV, HD, B = 32, 8, 128, 4


def block_causal(T, n):
    t = torch.arange(T)
    first = t // n * n
    end = torch.minimum(torch.tensor(T), first + (t % n // B + 1) * B)
    return first, end, torch.zeros_like(t), torch.zeros_like(t)


def training(T, n, copies):
    """A clean text and behind it `copies` noisy copies of each of its blocks, in sequences of n rows."""
    clean = max(B, n // (1 + copies) // B * B)
    t = torch.arange(T)
    first, at = t // n * n, t % n
    noisy = at >= clean
    copy = (at - clean).clamp(min=0) // B
    block = copy // copies % (clean // B)
    own = first + clean + copy * B
    own_end = torch.minimum(torch.minimum(first + n, own + B), torch.tensor(T))
    zero = torch.zeros_like(t)
    end = torch.where(noisy, first + block * B, first + (at // B + 1) * B)
    return first, end, torch.where(noisy, own, zero), torch.where(noisy, own_end, zero)


def median_ms(run, flush):
    times = []
    for i in range(12):
        flush.zero_()
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        run()
        stop.record()
        torch.cuda.synchronize()
        if i > 1:
            times.append(start.elapsed_time(stop))
    return statistics.median(times)


def main():
    if not torch.cuda.is_available():
        print("no GPU here: nothing to measure")
        return
    torch.manual_seed(1)
    flush = torch.empty(64 << 20, device="cuda")
    compiled = torch.compile(flex_attention)
    for T in [int(x) for x in sys.argv[1:]] or [1024, 4096, 16384]:
        n = min(T, 4096)
        for name, spans in (("block-causal", block_causal(T, n)), ("SFT", training(T, n, 1)), ("trace", training(T, n, 3))):
            b0, e0, b1, e1 = (x.to("cuda", torch.int32) for x in spans)

            def sees(b, h, q, k):
                return ((k >= b0[q]) & (k < e0[q])) | ((k >= b1[q]) & (k < e1[q]))

            mask = create_block_mask(sees, None, None, T, T, device="cuda")
            pairs = int((e0 - b0).sum() + (e1 - b1).sum())
            work = 4.0 * pairs * NH * HD
            q, k, v = (torch.randn(1, h, T, HD, device="cuda", dtype=torch.bfloat16, requires_grad=True) for h in (NH, NKV, NKV))
            forward = lambda: compiled(q, k, v, block_mask=mask, enable_gqa=True)
            out = forward()
            dout = torch.randn_like(out)
            backward = lambda: torch.autograd.grad(out, (q, k, v), dout, retain_graph=True)
            backward()
            for what, run, times in (("forward", forward, 1), ("backward", backward, 2.5)):
                ms = median_ms(run, flush)
                print(f"flex_attention {what:9} {NH}/{NKV} heads, T {T:5}, {name:13} {ms:8.3f} ms {times * work / ms * 1e-9:7.1f} TFLOP/s", flush=True)


main()
