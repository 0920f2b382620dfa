#include "train/sft_example.h"

#include <algorithm>

#include "utils/error.h"
#include "utils/json.h"
#include "utils/json_fields.h"

// Indices into a response of n tokens: ascending order restored, each at most once.
static std::vector<int> get_indices(const Json& json, const char* field, int n, const std::string& where) {
    if (!has(json, field)) return {};
    std::vector<int> out = get_ints(json, field, where, 0, n - 1, "an index in the response");
    std::sort(out.begin(), out.end());
    if (const auto twice = std::adjacent_find(out.begin(), out.end()); twice != out.end())
        fail(Exit::BadFile, "%s: field '%s' names index %d twice", where.c_str(), field, *twice);
    return out;
}

static SftCopy parse_copy(const Json& json, int prompt_length, int n, int block, const std::string& where) {
    if (!json.is_object())
        fail(Exit::BadFile, "%s: expected a JSON object, found %s", where.c_str(), json.type_name());
    SftCopy copy;
    if (has(json, "causal")) copy.causal = get_bool(json, "causal", where);
    copy.masked = get_indices(json, "masked", n, where);
    copy.target = has(json, "targets") ? get_indices(json, "targets", n, where) : copy.masked;
    if (has(json, "weight")) copy.weight = get_finite(json, "weight", where);
    if (copy.target.empty())
        fail(Exit::BadFile, "%s: the copy trains nothing: give 'masked' or 'targets'", where.c_str());
    if (copy.causal && !copy.masked.empty())
        fail(Exit::BadFile,
             "%s: field 'masked' is given, but nothing is masked in a causal copy: give 'targets' alone",
             where.c_str());
    if (copy.causal && prompt_length == 0 && copy.target[0] == 0)
        fail(Exit::BadFile,
             "%s: field 'targets' names index 0, which nothing comes before: the prompt is empty",
             where.c_str());
    if (block && !copy.causal) {
        const auto block_of = [&](int k) { return (prompt_length + k) / block; };
        const int b = block_of(copy.target[0]);
        for (const std::vector<int>* indices : {&copy.masked, &copy.target})
            for (const int k : *indices)
                if (block_of(k) != b)
                    fail(Exit::BadFile,
                         "%s: index %d is not in the same block of %d as index %d: a copy is one block",
                         where.c_str(), k, block, copy.target[0]);
    }
    return copy;
}

static SftExample parse_sft_example(const Json& json, const RecordLimits& limits, const std::string& where) {
    SftExample e;
    e.prompt_ids = get_ints(json, "prompt_ids", where, 0, limits.V - 1, "a token id");
    e.response_ids = get_ints(json, "response_ids", where, 0, limits.V - 1, "a token id");
    if (e.response_ids.empty())
        fail(Exit::BadFile, "%s: field 'response_ids' is empty: there is nothing to train on", where.c_str());
    const int P = int(e.prompt_ids.size()), n = int(e.response_ids.size());
    if (has(json, "canvas")) e.canvas = int(get_int(json, "canvas", where, 0, limits.max_positions));
    if (limits.block) e.canvas = 0;  // the rest of the last block is always masked, and nothing follows it
    const int64_t end = limits.block ? (int64_t(P + n) + limits.block - 1) / limits.block * limits.block
                                     : int64_t(P + n) + e.canvas;
    if (end > limits.max_positions)
        fail(Exit::BadFile, "%s: prompt, response and what follows take %lld positions, the model has %d",
             where.c_str(), (long long)end, limits.max_positions);
    if (!has(json, "copies") || !json.find("copies")->is_array() || json.find("copies")->empty())
        fail(Exit::BadFile, "%s: field 'copies' is missing or empty (a list of objects)", where.c_str());
    for (const Json& copy : *json.find("copies"))
        e.copies.push_back(
            parse_copy(copy, P, n, limits.block, format("%s: copies[%zu]", where.c_str(), e.copies.size())));
    return e;
}

std::vector<SftExample> read_sft_examples(const std::string& path, const RecordLimits& limits) {
    std::vector<SftExample> examples;
    read_jsonl(path, [&](const Json& json, const std::string& where) {
        examples.push_back(parse_sft_example(json, limits, where));
    });
    if (examples.empty())
        fail(Exit::BadFile, "%s: the file is empty, expected one JSON object per line", path.c_str());
    return examples;
}
