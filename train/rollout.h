// rollout.h -- problems in, responses with rewards out: the sampling side of RL and of evaluation.
#pragma once
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "inference/engine.h"
#include "train/tasks/task.h"
#include "utils/json_forward.h"

// How text becomes a prompt and ids become text again.
struct TextCodec {
    // with its prompt and chat template
    std::function<std::vector<int>(const std::string& user_text)> encode_prompt;
    std::function<std::vector<int>(const std::string& response)> encode_response;  // with the end-of-turn id
    std::function<std::string(std::span<const int> ids)> decode;                   // without special tokens
    std::function<std::vector<std::string>(std::span<const int> ids)> pieces;      // the text of each token
};

struct Response {
    int problem = 0;  // index in RolloutBatch::problems; responses to one problem are a group
    Trajectory trajectory;
    std::string text;
    double reward = 0;                  // of the task
    bool graded = true;                 // false: the task could not judge it, and it earned nothing
    std::vector<double> token_rewards;  // process rewards, where the task gives any
    bool right() const { return reward >= 1; }
    bool truncated() const { return trajectory.finish_reason == "length"; }
};

struct RolloutStats {
    double reward = 0, accuracy = 0;   // means over responses
    double length = 0, truncated = 0;  // mean tokens; share that met the limit
    double tokens_per_forward = 0;     // all output tokens over all passes their sequences took part in
    double tokens_per_step_right = 0, tokens_per_step_wrong = 0;  // per denoising step; 0 where there is none
    double entropy = 0;  // nats, mean over tokens of the distribution each was drawn from (trajectory.h)
    int64_t tokens = 0;
};

Json to_json(const RolloutStats& stats);  // all but `tokens`, by the names above
RolloutStats rollout_stats(const Json& json);

// A rollout's figures for one task of a mixture.
struct PartStats {
    std::string name;
    int64_t responses = 0;
    double reward = 0, accuracy = 0, length = 0, truncated = 0;
};

struct RolloutBatch {
    std::vector<Problem> problems;
    std::vector<Response> responses;  // in order of problems, `per_problem` each
    double generate_s = 0, reward_s = 0;
    int judged = 0;            // responses that were put to the task
    int ungraded = 0;          // responses that the task could not judge: they earned nothing
    bool interrupted = false;  // some responses are not finished, or not judged
    RolloutStats stats() const;
    std::vector<PartStats> part_stats(const Task& task) const;  // of a mixture; else empty
};

// Sequence numbers from here on are those of evaluations, the same in each.
constexpr uint32_t EVALUATION_SEQUENCES = 1u << 31;

// Generates per_problem responses to every problem and rewards them. Random streams: response i has the
// sequence number first_sequence + i. should_stop is asked before every forward pass. A response without its
// stop token is no answer, whatever it says, unless `judge_truncated`.
RolloutBatch roll_out(Engine& engine, const TextCodec& codec, const Task& task, std::vector<Problem> problems,
                      int per_problem, const GenerateOptions& options, uint32_t first_sequence,
                      const std::function<bool()>& should_stop, bool judge_truncated = false);

// Has the task judge the batch's responses: sets their rewards, `judged`, `ungraded` and `interrupted`. If it gives token
// rewards, the tokens of a response that it did not judge earn nothing. `pieces`, as a codec has it, shows it the tokens;
// null: it sees none, and Error(Usage) is thrown if it rewards them.
void reward(RolloutBatch& batch, const Task& task,
            const std::function<std::vector<std::string>(std::span<const int> ids)>& pieces,
            bool judge_truncated, const std::function<bool()>& should_stop);
