// task_mixture.cpp -- several tasks at once, each with a weight: `SPEC@WEIGHT`, a whole number, 1 if it is left out.
//
// With weights w1, w2, ... of sum W, every run of W problems holds w1 of the first task, w2 of the second and
// so on, in a fixed order that spreads them evenly. So which problem is the i-th is a function of i alone.
#include <algorithm>
#include <charconv>
#include <memory>
#include <numeric>

#include "train/tasks/task.h"
#include "utils/error.h"

namespace {

constexpr int LARGEST_WEIGHT = 1000;

struct Weighted {
    Task task;
    int weight;
};

// Cuts the weight off the end of a spec. What is no number behind its last '@' is a path's or a command's: ssh me@host.
int take_weight(std::string& spec) {
    const size_t at = spec.rfind('@');
    if (at == std::string::npos || spec.find_first_not_of("0123456789.+-", at + 1) != std::string::npos)
        return 1;
    const char *begin = spec.data() + at + 1, *end = spec.data() + spec.size();
    int weight = 0;
    const auto [last, error] = std::from_chars(begin, end, weight);
    if (error != std::errc() || last != end || weight < 1 || weight > LARGEST_WEIGHT)
        fail(Exit::Usage, "task '%s': the weight after '@' is '%s', it must be a whole number from 1 to %d",
             spec.substr(0, at).c_str(), begin, LARGEST_WEIGHT);
    spec.resize(at);
    return weight;
}

bool has_problems(const Task& task, Split split) {
    const bool generated = task.train_size == 0 && task.held_out_size == 0;
    return generated || (split == Split::Train ? task.train_size : task.held_out_size) > 0;
}

// Whose turn it is, for W problems in a row.
struct Turns {
    std::vector<int> part;       // (W)
    std::vector<int> number;     // (W) how often it was this part's turn before
    std::vector<int> per_round;  // (parts) its weight, 0 where it has no problem of the split

    Turns(std::span<const Weighted> parts, Split split) {
        for (const Weighted& p : parts) per_round.push_back(has_problems(p.task, split) ? p.weight : 0);
        const int W = std::accumulate(per_round.begin(), per_round.end(), 0);
        // Every turn all parts earn their weight, and the richest pays W for being next.
        std::vector<int> credit(parts.size(), 0), taken(parts.size(), 0);
        for (int i = 0; i < W; i++) {
            for (size_t k = 0; k < parts.size(); k++) credit[k] += per_round[k];
            const auto next = size_t(std::max_element(credit.begin(), credit.end()) - credit.begin());
            credit[next] -= W;
            part.push_back(int(next));
            number.push_back(taken[next]++);
        }
    }
};

struct Mixture {
    std::vector<Weighted> parts;
    Turns train, held_out;
    uint64_t seed;

    Mixture(std::vector<Weighted> p, uint64_t s)
        : parts(std::move(p)), train(parts, Split::Train), held_out(parts, Split::HeldOut), seed(s) {}

    Problem problem(Split split, int64_t index) const {
        const Turns& turns = split == Split::Train ? train : held_out;
        const int64_t W = int64_t(turns.part.size());
        CHECK(W > 0, "no task of the mixture has such problems");
        const int part = turns.part[size_t(index % W)];
        const Task& task = parts[size_t(part)].task;
        const int64_t draw = index / W * turns.per_round[size_t(part)] + turns.number[size_t(index % W)];
        Problem out = task.problem(split, split == Split::Train ? drawn_index(task, seed, draw)
                                          : task.held_out_size  ? draw % task.held_out_size
                                                                : draw);
        out.part = part;
        return out;
    }

    std::vector<Verdict> judge(std::span<const Answer> answers,
                               const std::function<bool()>& should_stop) const {
        std::vector<Verdict> out(answers.size());
        for (size_t k = 0; k < parts.size(); k++) {
            std::vector<Answer> own;
            std::vector<size_t> place;
            for (size_t i = 0; i < answers.size(); i++)
                if (answers[i].problem->part == int(k)) own.push_back(answers[i]), place.push_back(i);
            if (own.empty()) continue;
            std::vector<Verdict> verdicts = ::judge(parts[k].task, own, should_stop);
            for (size_t i = 0; i < own.size(); i++) out[place[i]] = std::move(verdicts[i]);
        }
        return out;
    }
};

}  // namespace

Task make_tasks(std::span<const std::string> specs, uint64_t seed) {
    std::vector<Weighted> parts;
    std::string faults;
    Exit code = Exit::Usage;
    for (std::string spec : specs) {
        try {
            const int weight = take_weight(spec);
            parts.push_back({make_task(spec, seed), weight});
        } catch (const Error& error) {
            faults += (faults.empty() ? "" : "\n") + std::string(error.what());
            code = error.code;
        }
    }
    if (specs.empty()) faults = "--task: say which";
    if (!faults.empty()) throw Error(code, faults);
    if (parts.size() == 1) return std::move(parts[0].task);

    Task task;
    for (const Weighted& p : parts) {
        task.name += (task.name.empty() ? "" : " + ") + p.task.name;
        // two with different options are told apart by their place
        const auto same = std::count_if(parts.begin(), parts.end(),
                                        [&](const Weighted& q) { return q.task.name == p.task.name; });
        task.parts.push_back(p.task.name + (same > 1 ? format("#%zu", task.parts.size() + 1) : ""));
        task.longest_solution = std::max(task.longest_solution, p.task.longest_solution);
    }
    const int64_t W = std::accumulate(parts.begin(), parts.end(), int64_t(0),
                                      [](int64_t sum, const Weighted& p) { return sum + p.weight; });
    for (const Weighted& p : parts)
        task.pass =
            std::max(task.pass, (std::max(p.task.train_size, p.task.held_out_size) / p.weight + 1) * W);
    const auto mixture = std::make_shared<const Mixture>(std::move(parts), seed);
    if (mixture->train.part.empty() || mixture->held_out.part.empty())
        fail(Exit::Usage, "tasks %s: none has problems %s", task.name.c_str(),
             mixture->train.part.empty() ? "to train on" : "that are held out");
    task.problem = [mixture](Split split, int64_t index) { return mixture->problem(split, index); };
    task.judge = [mixture](std::span<const Answer> answers, const std::function<bool()>& should_stop) {
        return mixture->judge(answers, should_stop);
    };
    return task;
}
