// record.h -- one response that is trained on: what was generated, in which order, and how good it was.
//
// Token ids stay token ids from the rollout to the gradient: nothing is decoded and tokenised again. Records
// come from a generation of this process or from a JSONL file.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "inference/trajectory.h"
#include "model/config.h"
#include "utils/json_forward.h"

struct Record {
    std::vector<int> prompt_ids;
    std::vector<int> response_ids;  // (n), the stop token included
    std::vector<int> step_map;      // (n) reveal steps 1, 2, ... over the whole response; gaps are legal
    std::vector<int> tail_ids;      // the rest of the last block (or canvas)
    std::vector<int> tail_steps;    // and when it was revealed; NEVER where still masked
    int64_t group = 0;              // responses of one group are compared with each other

    std::optional<double> reward;
    std::vector<double> advantage;      // given: (n), or one number for all tokens; empty: from rewards
    std::vector<double> old_logprobs;   // (n) of the policy that generated it; empty: the current one's
    std::vector<double> old_values;     // (n) of the value model at that time; empty: the current one's
    std::vector<double> token_rewards;  // (n) one for every token; empty: the reward, at the end

    int length() const { return int(response_ids.size()); }
};

// What a record must fit.
struct RecordLimits {
    int V = 0;              // ids are in [0, V)
    int max_positions = 0;  // of prompt, response and the rest of the last block
    int block = 4;          // 0: full attention
    bool has_value_model = false;
};
RecordLimits record_limits(const ModelConfig& config, int block, bool has_value_model);

// Every line of a JSONL file, validated. `output_ids` and `logprobs` are accepted as names of response_ids and
// old_logprobs, so a line of `infer --json` with a reward is a record. Its `logprobs` are ignored where it has an
// approximate `cache` (prefix, dual) or a `cfg_scale`: they are then not those of the states that are trained. Throws
// Error(BadFile) "path:line: ...".
std::vector<Record> read_records(const std::string& path, const RecordLimits& limits);

// `tail_ids` and `tail_steps` of a line that has them.
void read_tail(Record& record, const Json& json, const RecordLimits& limits, const std::string& where);

Record to_record(const Trajectory& trajectory, double reward, int64_t group);
Json to_json(const Record& record);
