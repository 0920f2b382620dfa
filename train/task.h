// task.h -- a task: problems, and a pure function that rewards a response. Adding one is one file
// (train/task_NAME.cpp) and one line in the table of task.cpp.
//
// A task is named by a spec: `NAME` or `NAME:key=value,key=value`, e.g. `arithmetic:digits=4,operations=+-`;
// a name that ends in .json or .jsonl is a data file (task_file.cpp). Every task that is generated writes its
// working first and its answer after the last ';', so that the answer alone is what counts.
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

// Problems of one split never occur in the other: a generated problem belongs to the split that its hash
// says.
enum class Split { Train, HeldOut };

struct Problem {
    std::string prompt;    // the user's text, before any prompt or chat template
    std::string solution;  // a response that is right, for SFT; empty where the data has none
    std::string answer;    // what the reward compares with
};

struct Task {
    std::string name;
    int64_t train_size = 0, held_out_size = 0;  // problems there are; 0: generated, any index below 2^31
    // The same problem for the same index, always; a generated task may draw a problem more than once.
    std::function<Problem(Split split, int64_t index)> problem;
    // In [0, 1]; 1: right.
    std::function<double(const Problem& problem, std::string_view response)> reward;
    int longest_solution = 0;  // characters; 0 where the task has none
};

// Throws Error(Usage) where the spec names no task or a key or value that the task does not know,
// Error(BadFile) for a bad data file.
Task make_task(const std::string& spec, uint64_t seed);
std::vector<std::string> task_names();

// ---- for the files that define tasks

// The key=value pairs of a spec. Every key that a task knows is asked for once; reject_unknown() then names
// what is left.
class TaskOptions {
  public:
    // What begins after the `name_length` characters of the name is ':' and pairs.
    TaskOptions(const std::string& spec, size_t name_length);
    int integer(const std::string& key, int otherwise, int low, int high);
    double number(const std::string& key, double otherwise, double low, double high);
    bool flag(const std::string& key, bool otherwise);  // on|off
    std::string text(const std::string& key, const std::string& otherwise);
    std::string choice(const std::string& key,
                       const std::vector<std::string>& values);  // without the key: the first
    void reject_unknown() const;
    const std::string& name() const { return name_; }

  private:
    [[noreturn]] void refuse(const std::string& key, const std::string& value,
                             const std::string& allowed) const;
    std::string name_;
    std::map<std::string, std::string> values_;
    std::vector<std::string> known_;
};

Task make_arithmetic(TaskOptions& options, uint64_t seed);
Task make_countdown(TaskOptions& options, uint64_t seed);
Task make_sudoku4(TaskOptions& options, uint64_t seed);
Task make_file_task(TaskOptions& options, uint64_t seed);  // options.name() is the path

// The split of a problem: `key` is what must not be shared, e.g. the operands in sorted order. `share` of all
// keys are held out.
Split split_of(std::string_view key, double share);
// What follows the last ';', without spaces around it.
std::string_view final_answer(std::string_view response);
