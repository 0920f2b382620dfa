"""What Hugging Face's `tokenizers` does with the texts of bench_tokenizer.cpp, which runs this where it is installed.

usage: bench_tokenizers.py FOLDER DATA.jsonl     FOLDER: tokenizer.json, or merges.txt whose ids are Qwen's (bytes by rank, then merges)
prints: version, tokens, a hash of all ids, seconds of the first pass, of the fastest pass; processor time of its one thread
"""
import json
import os
import sys
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"
import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

QWEN2 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
         r"|\s+(?!\S)|\s+")


def load(folder):
    if os.path.exists(folder + "/tokenizer.json"):
        return Tokenizer.from_file(folder + "/tokenizer.json")
    with open(folder + "/merges.txt", encoding="utf-8") as file:
        merges = [tuple(line.split()) for line in file.read().split("\n")[1:] if line]
    rank = sorted(pre_tokenizers.ByteLevel.alphabet())  # by code point, GPT-2's order
    vocabulary = {word: i for i, word in enumerate(rank + [a + b for a, b in merges])}
    t = Tokenizer(models.BPE(vocabulary, merges))
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN2), "isolated"),
                                               pre_tokenizers.ByteLevel(False, use_regex=False)])
    with open(folder + "/tokenizer_config.json", encoding="utf-8") as file:
        added = json.load(file).get("added_tokens_decoder", {})
    for _, token in sorted((int(i), token) for i, token in added.items()):
        t.add_tokens([AddedToken(token["content"], normalized=token["normalized"], special=token["special"])])
    return t


def main():
    folder, data = sys.argv[1:]
    with open(data, encoding="utf-8") as file:
        texts = [json.loads(line)[field] for line in file for field in ("question", "answer")]
    tokenizer = load(folder)
    encode = getattr(tokenizer, "encode_batch_fast", tokenizer.encode_batch)  # fast: without offsets, as ours
    seconds = []
    for _ in range(4):
        start = time.process_time()
        encoded = encode(texts, add_special_tokens=False)
        seconds.append(time.process_time() - start)
    n, checksum = 0, 0
    for one in encoded:
        n += len(one.ids)
        for token in one.ids:
            checksum = (checksum * 31 + token) & 0xFFFFFFFF
    print(tokenizers.__version__, n, checksum, seconds[0], min(seconds))


main()
