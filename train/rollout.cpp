#include "train/rollout.h"

#include <set>

#include "utils/json.h"
#include "utils/timer.h"

namespace {

struct NamedStat {
    const char* name;
    double RolloutStats::*field;
};
constexpr NamedStat STATS[] = {{"accuracy", &RolloutStats::accuracy},
                               {"reward", &RolloutStats::reward},
                               {"length", &RolloutStats::length},
                               {"truncated", &RolloutStats::truncated},
                               {"tokens_per_forward", &RolloutStats::tokens_per_forward},
                               {"tokens_per_step_right", &RolloutStats::tokens_per_step_right},
                               {"tokens_per_step_wrong", &RolloutStats::tokens_per_step_wrong},
                               {"entropy", &RolloutStats::entropy}};

}  // namespace

Json to_json(const RolloutStats& stats) {
    Json out = Json::object();
    for (const NamedStat& s : STATS) out[s.name] = stats.*s.field;
    return out;
}

RolloutStats rollout_stats(const Json& json) {
    RolloutStats out;
    for (const NamedStat& s : STATS) out.*s.field = json.at(s.name);
    return out;
}

RolloutStats RolloutBatch::stats() const {
    RolloutStats s;
    int64_t passes = 0, tokens[2] = {0, 0}, steps[2] = {0, 0};
    for (const Response& r : responses) {
        const int64_t n = int64_t(r.trajectory.output_ids.size());
        s.reward += r.reward;
        s.accuracy += r.right();
        s.truncated += r.truncated();
        s.tokens += n;
        passes += r.trajectory.forward_passes;
        tokens[r.right()] += n;
        steps[r.right()] += r.trajectory.denoise_steps;
        s.entropy += r.trajectory.entropy * double(n);
    }
    const double n = double(std::max<size_t>(responses.size(), 1));
    const auto ratio = [](int64_t a, int64_t b) { return b ? double(a) / double(b) : 0.0; };
    s.reward /= n;
    s.accuracy /= n;
    s.truncated /= n;
    s.length = double(s.tokens) / n;
    s.entropy /= double(std::max<int64_t>(s.tokens, 1));
    s.tokens_per_forward = ratio(s.tokens, passes);
    s.tokens_per_step_wrong = ratio(tokens[0], steps[0]);
    s.tokens_per_step_right = ratio(tokens[1], steps[1]);
    return s;
}

std::vector<PartStats> RolloutBatch::part_stats(const Task& task) const {
    std::vector<PartStats> out;
    for (const std::string& name : task.parts) out.push_back({.name = name});
    if (out.empty()) return out;
    for (const Response& r : responses) {
        PartStats& s = out[size_t(problems[size_t(r.problem)].part)];
        s.responses++;
        s.reward += r.reward;
        s.accuracy += r.right();
        s.length += double(r.trajectory.output_ids.size());
        s.truncated += r.truncated();
    }
    for (PartStats& s : out)
        for (double* sum : {&s.reward, &s.accuracy, &s.length, &s.truncated})
            *sum /= double(std::max<int64_t>(s.responses, 1));
    return out;
}

void reward(RolloutBatch& batch, const Task& task,
            const std::function<std::vector<std::string>(std::span<const int> ids)>& pieces,
            bool judge_truncated, const std::function<bool()>& should_stop) {
    std::vector<Response*> judged;
    std::vector<std::vector<std::string>> tokens(batch.responses.size());
    std::vector<Answer> answers;
    for (Response& r : batch.responses) {
        if (r.truncated() && !judge_truncated) continue;
        std::vector<std::string>& own = tokens[judged.size()];
        if (task.judge && pieces) own = pieces(r.trajectory.output_ids);
        answers.push_back({&batch.problems[size_t(r.problem)], r.text, own});
        judged.push_back(&r);
    }
    std::vector<Verdict> verdicts = judge(task, answers, should_stop);
    batch.judged = int(verdicts.size());
    std::set<int> rewards_tokens;  // parts
    for (size_t i = 0; i < verdicts.size(); i++) {
        judged[i]->reward = verdicts[i].reward;
        judged[i]->token_rewards = std::move(verdicts[i].token_rewards);
        judged[i]->graded = verdicts[i].graded;
        batch.ungraded += !verdicts[i].graded;
        if (!judged[i]->token_rewards.empty()) rewards_tokens.insert(answers[i].problem->part);
    }
    batch.interrupted = batch.ungraded && should_stop && should_stop();
    for (Response& r : batch.responses)
        if (rewards_tokens.contains(batch.problems[size_t(r.problem)].part))
            r.token_rewards.resize(r.trajectory.output_ids.size(), 0.0);
}

RolloutBatch roll_out(Engine& engine, const TextCodec& codec, const Task& task, std::vector<Problem> problems,
                      int per_problem, const GenerateOptions& options, uint32_t first_sequence,
                      const std::function<bool()>& should_stop, bool judge_truncated) {
    RolloutBatch batch;
    batch.problems = std::move(problems);
    std::vector<Request> requests;
    for (const Problem& problem : batch.problems) {
        const std::vector<int> prompt = codec.encode_prompt(problem.prompt);
        for (int i = 0; i < per_problem; i++)
            requests.push_back({prompt, first_sequence + uint32_t(requests.size()), options});
    }
    Timer timer;
    std::vector<Trajectory> trajectories =
        engine.generate(requests, {.on_reveal = {}, .on_finish = {}, .should_stop = should_stop});
    batch.generate_s = timer.restart();
    for (size_t i = 0; i < trajectories.size(); i++) {
        Response r;
        r.problem = int(i) / per_problem;
        r.trajectory = std::move(trajectories[i]);
        r.text = codec.decode(r.trajectory.output_ids);
        batch.interrupted |= r.trajectory.finish_reason == "interrupted";
        batch.responses.push_back(std::move(r));
    }
    if (!batch.interrupted) reward(batch, task, codec.pieces, judge_truncated, should_stop);
    batch.reward_s = timer.seconds();
    return batch;
}
