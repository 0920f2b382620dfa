#include "train/eval/grade.h"

#include <cmath>

#include "inference/pieces.h"
#include "train/evaluation.h"
#include "utils/error.h"
#include "utils/json.h"
#include "utils/json_fields.h"
#include "utils/signals.h"

namespace {

// Finds the problem that a line belongs to.
class ProblemFinder {
  public:
    ProblemFinder(const Task& task, Split split, int64_t problems)
        : task_(task), split_(split), problems_(problems) {}

    Problem find(const Json& line, const std::string& where) {
        if (has(line, "prompt")) {
            const std::string prompt = get_string(line, "prompt", where);
            // Which part of a mixture it is of, only the task knows.
            if (has(line, "answer") && task_.parts.empty())
                return {prompt, "", get_string(line, "answer", where), 0};
            if (by_prompt_.empty()) collect();
            const auto found = by_prompt_.find(prompt);
            if (found == by_prompt_.end())
                fail(Exit::BadFile, "%s: field 'prompt' is no question of task %s%s", where.c_str(),
                     task_.name.c_str(), has(line, "answer") ? "" : ", and there is no 'answer'");
            return found->second;
        }
        if (!has(line, "id"))
            fail(Exit::BadFile, "%s: has neither 'prompt' nor 'id' to say which problem it answers",
                 where.c_str());
        const std::vector<Problem> one =
            problems_of(task_, split_, get_int(line, "id", where, 0, INT32_MAX), 1);
        if (one.empty())
            fail(Exit::BadFile, "%s: field 'id' is past the last problem of task %s", where.c_str(),
                 task_.name.c_str());
        return one[0];
    }

  private:
    void collect() {
        for (const Split split : {Split::Train, Split::HeldOut})
            for (const Problem& p : problems_of(task_, split, 0, problems_)) by_prompt_.emplace(p.prompt, p);
    }
    const Task& task_;
    Split split_;
    int64_t problems_;
    std::map<std::string, Problem> by_prompt_;
};

// As much of the trajectory as scores are made of.
Trajectory trajectory_of(const Json& line, const std::string& where, const Tokenizer* tokenizer) {
    Trajectory t;
    if (tokenizer || has(line, "output_ids"))
        t.output_ids = get_ints(line, "output_ids", where, 0,
                                tokenizer ? tokenizer->vocabulary_size() - 1 : INT32_MAX, "a token id");
    if (has(line, "step_map")) t.step_map = get_ints(line, "step_map", where, 0, INT32_MAX, "a reveal step");
    if (has(line, "entropy")) t.entropy = get_finite(line, "entropy", where);
    if (has(line, "finish_reason")) t.finish_reason = get_string(line, "finish_reason", where);
    if (has(line, "denoise_steps"))
        t.denoise_steps = int(get_int(line, "denoise_steps", where, 0, INT32_MAX));
    if (has(line, "forward_passes"))
        t.forward_passes = int(get_int(line, "forward_passes", where, 0, INT32_MAX));
    return t;
}

void reward_again(SavedResponses& saved, const std::vector<double>& in_file, const Task& task,
                  const Tokenizer* tokenizer) {
    std::function<std::vector<std::string>(std::span<const int>)> pieces;
    if (tokenizer) pieces = [&](std::span<const int> ids) { return pieces_of(tokenizer, ids); };
    reward(saved.batch, task, pieces, false, [] { return interrupted(); });
    for (size_t i = 0; i < in_file.size(); i++) {
        if (std::isnan(in_file[i])) continue;
        saved.changed += in_file[i] != saved.batch.responses[i].reward;
        saved.rewards_in_file += in_file[i];
        saved.with_reward++;
    }
}

}  // namespace

std::vector<SavedResponses> grade_file(const std::string& path, const Task& task, Split split,
                                       int64_t problems, const Tokenizer* tokenizer) {
    ProblemFinder finder(task, split, problems);
    std::vector<SavedResponses> out;
    std::map<std::string, size_t> by_name;                  // index in `out`
    std::vector<std::map<std::string, int>> problem_index;  // of `out`: by prompt and answer
    std::vector<std::vector<double>> in_file;               // of `out`: rewards as the file says
    read_jsonl(path, [&](const Json& line, const std::string& where) {
        if (!line.is_object()) fail(Exit::BadFile, "%s: is not an object", where.c_str());
        std::string name;
        for (const char* part : {"model", "decoding"})
            if (has(line, part)) name += (name.empty() ? "" : ", ") + get_string(line, part, where);
        const auto [at, fresh] = by_name.emplace(name.empty() ? path : name, out.size());
        if (fresh) {
            out.emplace_back().name = at->first;
            problem_index.emplace_back();
            in_file.emplace_back();
        }
        SavedResponses& saved = out[at->second];
        const Problem problem = finder.find(line, where);
        const auto [number, unseen] = problem_index[at->second].emplace(
            problem.prompt + '\0' + problem.answer, int(saved.batch.problems.size()));
        if (unseen) saved.batch.problems.push_back(problem);
        Response r;
        r.problem = number->second;
        r.text = get_string(line, "text", where);
        r.trajectory = trajectory_of(line, where, tokenizer);
        in_file[at->second].push_back(has(line, "reward") ? get_finite(line, "reward", where) : NAN);
        saved.batch.responses.push_back(std::move(r));
    });
    if (out.empty()) fail(Exit::BadFile, "%s: holds no response", path.c_str());
    try {
        for (size_t i = 0; i < out.size(); i++) reward_again(out[i], in_file[i], task, tokenizer);
    } catch (const Error& error) {  // a task does not know where its problem is from
        if (error.code != Exit::BadFile) throw;
        throw Error(error.code, path + ": " + error.what());
    }
    return out;
}
