#include "train/record.h"

#include <algorithm>

#include "utils/error.h"
#include "utils/json.h"
#include "utils/json_fields.h"

RecordLimits record_limits(const ModelConfig& config, int block, bool has_value_model) {
    return {.V = config.V,
            .max_positions = config.max_positions,
            .block = block,
            .has_value_model = has_value_model};
}

namespace {

// The name a field goes by in this line: its own, or the one `infer --json` uses.
const char* name_in(const Json& json, const char* name, const char* alias, const std::string& where) {
    if (has(json, name) && has(json, alias))
        fail(Exit::BadFile, "%s: fields '%s' and '%s' are the same thing: give one", where.c_str(), name,
             alias);
    return has(json, alias) ? alias : name;
}

void expect_length(size_t found, size_t wanted, const char* field, const char* of, const std::string& where) {
    if (found != wanted)
        fail(Exit::BadFile, "%s: field '%s' has %zu entries, expected %zu, one per entry of '%s'",
             where.c_str(), field, found, wanted, of);
}

// The numbers of an optional field, one per response token.
std::vector<double> per_token(const Json& json, const char* field, size_t n, const char* of,
                              const std::string& where) {
    if (!has(json, field)) return {};
    std::vector<double> out = get_numbers(json, field, where);
    expect_length(out.size(), n, field, of, where);
    return out;
}

}  // namespace

void read_tail(Record& r, const Json& json, const RecordLimits& limits, const std::string& where) {
    if (has(json, "tail_ids") != has(json, "tail_steps"))
        fail(Exit::BadFile, "%s: fields 'tail_ids' and 'tail_steps' belong together: give both or neither",
             where.c_str());
    if (!has(json, "tail_ids")) return;
    r.tail_ids =
        get_ints(json, "tail_ids", where, NEVER, limits.V - 1, "a token id, or -1 where still masked");
    r.tail_steps =
        get_ints(json, "tail_steps", where, NEVER, INT32_MAX, "a step (1, 2, ...), or -1 where still masked");
    expect_length(r.tail_steps.size(), r.tail_ids.size(), "tail_steps", "tail_ids", where);
    for (size_t i = 0; i < r.tail_ids.size(); i++) {
        if (r.tail_steps[i] == 0)
            fail(Exit::BadFile, "%s: field 'tail_steps'[%zu] is 0: steps count from 1", where.c_str(), i);
        if (r.tail_ids[i] == NEVER && r.tail_steps[i] != NEVER)
            fail(Exit::BadFile, "%s: tail_ids[%zu] is -1 (still masked), but tail_steps[%zu] is %d",
                 where.c_str(), i, i, r.tail_steps[i]);
    }
}

namespace {

// Lengths against the block and the model's positions.
void check_extent(const Record& r, const RecordLimits& limits, const std::string& where) {
    int64_t end = int64_t(r.prompt_ids.size() + r.response_ids.size());
    if (limits.block) {
        const int64_t room = (limits.block - end % limits.block) % limits.block;
        if (int64_t(r.tail_ids.size()) > room)
            fail(Exit::BadFile,
                 "%s: field 'tail_ids' has %zu entries, but only %lld positions follow the response in its "
                 "last block of %d",
                 where.c_str(), r.tail_ids.size(), (long long)room, limits.block);
        end += room;
    } else {
        end += int64_t(r.tail_ids.size());
    }
    if (end > limits.max_positions)
        fail(Exit::BadFile,
             "%s: prompt, response and the rest of the last block take %lld positions, the model has %d",
             where.c_str(), (long long)end, limits.max_positions);
}

// A block is generated after the blocks before it.
void check_block_order(const Record& r, int block, const std::string& where) {
    const int P = int(r.prompt_ids.size()), n = r.length();
    int latest = 0, latest_before = 0;  // of all steps so far; of the blocks before the current one
    for (int i = 0; i < n + int(r.tail_steps.size()); i++) {
        if ((P + i) % block == 0) latest_before = latest;
        const bool tail = i >= n;
        const int step = tail ? r.tail_steps[size_t(i - n)] : r.step_map[size_t(i)];
        if (step == NEVER) continue;
        if (step <= latest_before)
            fail(Exit::BadFile,
                 "%s: field '%s'[%d] is %d, but a block before it was still being revealed at step %d: with "
                 "blocks of %d the steps of "
                 "a block follow those of the blocks before (was it generated with another --block?)",
                 where.c_str(), tail ? "tail_steps" : "step_map", tail ? i - n : i, step, latest_before,
                 block);
        latest = std::max(latest, step);
    }
}

// What is given about how good the responses were must be the same in every record.
void check_signals(const std::vector<Record>& records, const std::vector<std::string>& where,
                   bool has_value_model) {
    const auto count = [&](const auto& given) {
        return size_t(std::count_if(records.begin(), records.end(), given));
    };
    const auto first_without = [&](const auto& given) {
        return where[size_t(std::find_if_not(records.begin(), records.end(), given) - records.begin())]
            .c_str();
    };
    const auto first_with = [&](const auto& given) {
        return where[size_t(std::find_if(records.begin(), records.end(), given) - records.begin())].c_str();
    };
    const auto has_advantage = [](const Record& r) { return !r.advantage.empty(); };
    const auto has_token_rewards = [](const Record& r) { return !r.token_rewards.empty(); };
    const auto has_reward = [](const Record& r) { return r.reward.has_value(); };

    if (has_value_model && count(has_advantage))
        fail(Exit::BadFile,
             "%s: field 'advantage' cannot be given together with a value model, which computes it: give "
             "'reward' or 'token_rewards'",
             first_with(has_advantage));
    if (!has_value_model && count(has_token_rewards))
        fail(Exit::BadFile,
             "%s: field 'token_rewards' needs a value model (--value-model): give 'reward' or 'advantage'",
             first_with(has_token_rewards));
    if (count(has_advantage) && count(has_advantage) < records.size())
        fail(Exit::BadFile,
             "%s: field 'advantage' is missing here, but other records have it: give it in all or in none",
             first_without(has_advantage));
    if (count(has_token_rewards) && count(has_token_rewards) < records.size())
        fail(
            Exit::BadFile,
            "%s: field 'token_rewards' is missing here, but other records have it: give it in all or in none",
            first_without(has_token_rewards));
    if (!count(has_advantage) && !count(has_token_rewards) && count(has_reward) < records.size())
        fail(Exit::BadFile, "%s: field 'reward' is missing (a number%s)", first_without(has_reward),
             has_value_model ? "; or give 'token_rewards' in all records"
                             : "; or give 'advantage' in all records");
}

}  // namespace

// One record, sound in itself; check_signals() compares it with the others.
static Record parse_record(const Json& json, const RecordLimits& limits, const std::string& where) {
    Record r;
    const char* response = name_in(json, "response_ids", "output_ids", where);
    const char* logprobs = name_in(json, "old_logprobs", "logprobs", where);
    r.prompt_ids = get_ints(json, "prompt_ids", where, 0, limits.V - 1, "a token id");
    r.response_ids = get_ints(json, response, where, 0, limits.V - 1, "a token id");
    if (r.response_ids.empty())
        fail(Exit::BadFile, "%s: field '%s' is empty: there is nothing to train on", where.c_str(), response);
    const size_t n = r.response_ids.size();
    r.step_map = get_ints(json, "step_map", where, 1, INT32_MAX, "a step (1, 2, ...)");
    expect_length(r.step_map.size(), n, "step_map", response, where);
    read_tail(r, json, limits, where);
    check_extent(r, limits, where);
    if (limits.block) check_block_order(r, limits.block, where);

    if (has(json, "group")) r.group = get_int(json, "group", where, INT64_MIN, INT64_MAX);
    if (has(json, "reward")) r.reward = get_finite(json, "reward", where);
    if (has(json, "advantage")) {
        if (json.find("advantage")->is_array())
            r.advantage = per_token(json, "advantage", n, response, where);
        else
            r.advantage = {get_finite(json, "advantage", where)};
    }
    r.old_logprobs = per_token(json, logprobs, n, response, where);
    const Json cache = json.value("cache", Json()), guidance = json.value("cfg_scale", Json());
    const bool other_states = cache == "prefix" || cache == "dual" || (guidance.is_number() && guidance > 0);
    if (other_states && logprobs == std::string("logprobs")) r.old_logprobs.clear();
    r.old_values = per_token(json, "old_values", n, response, where);
    r.token_rewards = per_token(json, "token_rewards", n, response, where);
    return r;
}

std::vector<Record> read_records(const std::string& path, const RecordLimits& limits) {
    std::vector<Record> records;
    std::vector<std::string> lines;
    read_jsonl(path, [&](const Json& json, const std::string& where) {
        records.push_back(parse_record(json, limits, where));
        lines.push_back(where);
    });
    if (records.empty())
        fail(Exit::BadFile, "%s: the file is empty, expected one JSON object per line", path.c_str());
    check_signals(records, lines, limits.has_value_model);
    return records;
}

Record to_record(const Trajectory& t, double reward, int64_t group) {
    Record r;
    r.prompt_ids = t.prompt_ids;
    r.response_ids = t.output_ids;
    r.step_map = t.step_map;
    r.tail_ids = t.tail_ids;
    r.tail_steps = t.tail_steps;
    r.group = group;
    r.reward = reward;
    if (t.cache.empty() && t.cfg_scale == 0) r.old_logprobs.assign(t.logprobs.begin(), t.logprobs.end());
    return r;
}

Json to_json(const Record& r) {
    Json json = {{"group", r.group},       {"prompt_ids", r.prompt_ids}, {"response_ids", r.response_ids},
                 {"step_map", r.step_map}, {"tail_ids", r.tail_ids},     {"tail_steps", r.tail_steps}};
    if (r.reward) json["reward"] = *r.reward;
    if (r.advantage.size() == 1 && r.response_ids.size() != 1)
        json["advantage"] = r.advantage[0];
    else if (!r.advantage.empty())
        json["advantage"] = r.advantage;
    if (!r.old_logprobs.empty()) json["old_logprobs"] = r.old_logprobs;
    if (!r.old_values.empty()) json["old_values"] = r.old_values;
    if (!r.token_rewards.empty()) json["token_rewards"] = r.token_rewards;
    return json;
}
