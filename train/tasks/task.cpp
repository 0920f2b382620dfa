// task.cpp -- the table of tasks and the reading of their specs.
#include "train/tasks/task.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <memory>

#include "utils/error.h"
#include "utils/philox.h"

namespace {

struct Entry {
    const char* name;
    Task (*make)(TaskOptions& options, uint64_t seed);
};
const Entry TABLE[] = {
    {"arithmetic", make_arithmetic},
    {"countdown", make_countdown},
    {"external", make_external},
    {"sudoku4", make_sudoku4},
};

std::string join(const std::vector<std::string>& words) {
    std::string out;
    for (const std::string& word : words) out += (out.empty() ? "" : ", ") + word;
    return out;
}

// The length of a spec's name: up to the first ':', for a data file up to the one after .json or .jsonl.
size_t name_length(const std::string& spec, bool* is_file) {
    const size_t colon = std::min(spec.find(':'), spec.size());
    for (const Entry& entry : TABLE)
        if (spec.compare(0, colon, entry.name) == 0) return colon;
    for (const std::string ending : {".jsonl", ".json"}) {
        for (size_t at = spec.find(ending); at != std::string::npos; at = spec.find(ending, at + 1)) {
            const size_t end = at + ending.size();
            *is_file = end == spec.size() || spec[end] == ':';
            if (*is_file) return end;
        }
    }
    return colon;
}

std::vector<std::string> task_names() {
    std::vector<std::string> names;
    for (const Entry& entry : TABLE) names.push_back(entry.name);
    return names;
}

}  // namespace

Task make_task(const std::string& spec, uint64_t seed) {
    bool is_file = false;
    const size_t length = name_length(spec, &is_file);
    TaskOptions options(spec, length);
    if (is_file) {
        Task task = make_file_task(options, seed);
        options.reject_unknown();
        task.name = options.name();
        return task;
    }
    for (const Entry& entry : TABLE) {
        if (options.name() != entry.name) continue;
        Task task = entry.make(options, seed);
        options.reject_unknown();
        task.name = entry.name;
        return task;
    }
    fail(Exit::Usage,
         "task '%s': there is no such task (there are %s, and files that end in .json or .jsonl)",
         options.name().c_str(), join(task_names()).c_str());
}

std::vector<Verdict> judge(const Task& task, std::span<const Answer> answers,
                           const std::function<bool()>& should_stop) {
    if (task.judge) return task.judge(answers, should_stop);
    std::vector<Verdict> out;
    for (const Answer& answer : answers)
        out.push_back(
            {.reward = task.reward(*answer.problem, answer.text), .token_rewards = {}, .graded = true});
    return out;
}

// The place of i in a random permutation of [0, n). Sorting by random keys would need n numbers; a random affine map
// i -> (a i + b) mod n, with a coprime to n, is a permutation too and needs two.
static int64_t shuffled(int64_t i, int64_t n, uint64_t seed, uint32_t pass) {
    Rng rng(seed, Stream::Shuffle, pass);
    const auto gcd = [](int64_t a, int64_t b) {
        while (b) a %= b, std::swap(a, b);
        return a;
    };
    int64_t a = 1 + int64_t(rng.below(uint32_t(n)));
    while (gcd(a, n) != 1) a = a % n + 1;
    return int64_t((uint64_t(a) * uint64_t(i) + rng.below(uint32_t(n))) % uint64_t(n));
}

int64_t drawn_index(const Task& task, uint64_t seed, int64_t draw) {
    const int64_t size = task.train_size;
    return size ? shuffled(draw % size, size, seed, uint32_t(draw / size)) : draw;
}

TaskOptions::TaskOptions(const std::string& spec, size_t name_length) : name_(spec.substr(0, name_length)) {
    for (size_t at = name_.size(); at < spec.size();) {
        const size_t end = std::min(spec.find(',', at + 1), spec.size());
        const std::string pair = spec.substr(at + 1, end - at - 1);
        const size_t equals = pair.find('=');
        if (equals == std::string::npos || equals == 0) {
            fail(Exit::Usage, "task '%s': '%s' is not key=value", name_.c_str(), pair.c_str());
        }
        if (!values_.emplace(pair.substr(0, equals), pair.substr(equals + 1)).second) {
            fail(Exit::Usage, "task '%s': '%s' is given twice", name_.c_str(),
                 pair.substr(0, equals).c_str());
        }
        at = end;
    }
}

void TaskOptions::refuse(const std::string& key, const std::string& value, const std::string& allowed) const {
    fail(Exit::Usage, "task '%s': %s is '%s', it must be %s", name_.c_str(), key.c_str(), value.c_str(),
         allowed.c_str());
}

std::string TaskOptions::text(const std::string& key, const std::string& otherwise) {
    known_.push_back(key);
    const auto found = values_.find(key);
    return found == values_.end() ? otherwise : found->second;
}

int TaskOptions::integer(const std::string& key, int otherwise, int low, int high) {
    const std::string value = text(key, std::to_string(otherwise));
    int number = 0;
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
    if (error != std::errc() || end != value.data() + value.size() || number < low || number > high) {
        refuse(key, value, format("a whole number from %d to %d", low, high));
    }
    return number;
}

double TaskOptions::number(const std::string& key, double otherwise, double low, double high) {
    const std::string value = text(key, format("%.17g", otherwise));
    double number = 0;
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
    if (error != std::errc() || end != value.data() + value.size() || !(number >= low && number <= high)) {
        refuse(key, value, format("a number from %g to %g", low, high));
    }
    return number;
}

bool TaskOptions::flag(const std::string& key, bool otherwise) {
    const std::string value = text(key, otherwise ? "on" : "off");
    if (value != "on" && value != "off") refuse(key, value, "on or off");
    return value == "on";
}

std::string TaskOptions::choice(const std::string& key, const std::vector<std::string>& values) {
    const std::string value = text(key, values[0]);
    if (std::find(values.begin(), values.end(), value) == values.end())
        refuse(key, value, "one of " + join(values));
    return value;
}

void TaskOptions::reject_unknown() const {
    for (const auto& [key, value] : values_) {
        if (std::find(known_.begin(), known_.end(), key) == known_.end()) {
            fail(Exit::Usage, "task '%s' has no option '%s' (it has %s)", name_.c_str(), key.c_str(),
                 join(known_).c_str());
        }
    }
}

// FNV-1a, then the finaliser of MurmurHash3 so that the top bits are even.
Split split_of(std::string_view key, double share) {
    uint64_t hash = 0xcbf29ce484222325;
    for (const char c : key) hash = (hash ^ uint8_t(c)) * 0x100000001b3;
    hash = (hash ^ (hash >> 33)) * 0xff51afd7ed558ccd;
    hash = (hash ^ (hash >> 33)) * 0xc4ceb9fe1a85ec53;
    hash ^= hash >> 33;
    return double(hash >> 11) * 0x1p-53 < share ? Split::HeldOut : Split::Train;
}

void Problems::add(Problem problem, double share) {
    (split_of(problem.prompt, share) == Split::HeldOut ? held_out : train).push_back(std::move(problem));
}

Task task_of(Problems problems, const std::string& path) {
    if (problems.train.empty() && problems.held_out.empty())
        fail(Exit::BadFile, "%s: holds no record", path.c_str());
    Task task;
    task.train_size = int64_t(problems.train.size());
    task.held_out_size = int64_t(problems.held_out.size());
    for (const auto* side : {&problems.train, &problems.held_out})
        for (const Problem& problem : *side)
            task.longest_solution = std::max(task.longest_solution, int(problem.solution.size()));
    const auto shared = std::make_shared<const Problems>(std::move(problems));
    task.problem = [shared](Split split, int64_t index) {
        const auto& side = split == Split::Train ? shared->train : shared->held_out;
        CHECK(index >= 0 && index < int64_t(side.size()), "problem %lld of %zu", (long long)index,
              side.size());
        return side[size_t(index)];
    };
    return task;
}

std::string_view final_answer(std::string_view response) {
    const size_t semicolon = response.rfind(';');
    if (semicolon != std::string_view::npos) response.remove_prefix(semicolon + 1);
    const auto is_space = [](char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; };
    while (!response.empty() && is_space(response.front())) response.remove_prefix(1);
    while (!response.empty() && is_space(response.back())) response.remove_suffix(1);
    return response;
}
