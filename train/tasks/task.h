// task.h -- a task: problems, and a pure function that rewards a response. Adding one is one file
// (train/tasks/task_NAME.cpp) and one line in the table of task.cpp.
//
// A task is named by a spec: `NAME` or `NAME:key=value,key=value`, e.g. `arithmetic:digits=4,operations=+-`;
// a name that ends in .json or .jsonl is a data file (task_file.cpp), `external` asks a command
// (task_external.cpp). Several specs are a mixture, `SPEC@WEIGHT` each. Every task that is generated writes its
// working first and its answer after the last ';', so that the answer alone is what counts.
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

// Problems of one split never occur in the other: a generated problem belongs to the split that its hash says.
enum class Split { Train, HeldOut };

struct Problem {
    std::string prompt;    // the user's text, before any prompt or chat template
    std::string solution;  // a response that is right, for SFT; empty where the data has none
    std::string answer;    // what the reward compares with
    int part = 0;          // of a mixture: index in Task::parts
};

// A response that is to be judged, and what it earned.
struct Answer {
    const Problem* problem;
    std::string_view text;
    std::span<const std::string> tokens;  // the text of each; none: it is not known
};
struct Verdict {
    double reward = 0;                  // 1: right
    std::vector<double> token_rewards;  // process rewards, one per token; empty: there are none
    bool graded = true;                 // false: no verdict could be had, and nothing is earned
};

struct Task {
    std::string name;
    std::vector<std::string> parts;             // of a mixture: the names of its tasks; empty: one task
    int64_t train_size = 0, held_out_size = 0;  // problems there are; 0: generated, any index below 2^31
    int64_t pass = 0;  // of a mixture: in so many problems every one of its data files is shown whole
    // The same problem for the same index, always; a generated task may draw a problem more than once.
    std::function<Problem(Split split, int64_t index)> problem;
    // In [0, 1]; 1: right.
    std::function<double(const Problem& problem, std::string_view response)> reward;
    // In place of `reward`: all responses of a rollout at once, single tokens too. What is left when
    // should_stop turns true is not graded.
    std::function<std::vector<Verdict>(std::span<const Answer> answers,
                                       const std::function<bool()>& should_stop)>
        judge;
    int longest_solution = 0;  // characters; 0 where the task has none
};

// Throws Error(Usage) where the spec names no task or a key or value that the task does not know,
// Error(BadFile) for a bad data file.
Task make_task(const std::string& spec, uint64_t seed);
// One spec, or a mixture: of every w1 + w2 + ... problems w1 are of the first task, and so on. Throws
// Error(Usage) with the faults of all specs.
Task make_tasks(std::span<const std::string> specs, uint64_t seed);

// By judge or reward, whichever the task has.
std::vector<Verdict> judge(const Task& task, std::span<const Answer> answers,
                           const std::function<bool()>& should_stop);

// The index of the training problem that is drawn `draw`-th: a data file is gone through in an order that is
// shuffled anew every time.
int64_t drawn_index(const Task& task, uint64_t seed, int64_t draw);

// ---- for the files that define tasks

// The key=value pairs of a spec. A task asks for every key it knows once; reject_unknown() then names what is left.
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
Task make_external(TaskOptions& options, uint64_t seed);
Task make_file_task(TaskOptions& options, uint64_t seed);  // options.name() is the path

// The problems of a data file.
struct Problems {
    std::vector<Problem> train, held_out;
    // By the hash of its prompt, so that `share` of all are held out.
    void add(Problem problem, double share);
};
// The task of going through them, still without a reward. Throws Error(BadFile) where there are none.
Task task_of(Problems problems, const std::string& path);

// The split of a problem: `key` is what must not be shared, e.g. the operands in sorted order. `share` of all
// keys are held out.
Split split_of(std::string_view key, double share);
// What follows the last ';', without spaces around it.
std::string_view final_answer(std::string_view response);
