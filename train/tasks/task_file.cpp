// task_file.cpp -- questions from a file, answers checked as numbers.
//
// A JSON array or JSON lines, of GSM8K's own records ({question, answer}, the answer's working ends in `#### 72`) or
// dLLM-RL's ({question, ground_truth_answer, ...}). Options:
//   held_out=0.1            share of the questions kept for evaluation, by hash; 0: all are for training, 1: for evaluation
//   answer=any|boxed|hash   where a response has its answer: \boxed{...}, after ####, or either
//   format=0                share of the reward for having an answer there at all, right or wrong
//   calculator=off          keep GSM8K's <<48/2=24>> in the reference solutions
#include "train/tasks/task.h"
#include "train/tasks/verify_number.h"
#include "utils/error.h"
#include "utils/json.h"
#include "utils/json_fields.h"

namespace {

struct Options {
    AnswerForm form;
    double format_share, held_out;
    bool calculator;
};

std::string without_calculator(const std::string& text) {
    std::string out;
    for (size_t at = 0; at < text.size();) {
        const size_t open = text.find("<<", at),
                     close = open == std::string::npos ? open : text.find(">>", open);
        if (close == std::string::npos) return out + text.substr(at);
        out += text.substr(at, open - at);
        at = close + 2;
    }
    return out;
}

// The working of a GSM8K answer with its result in the form that is asked for.
std::string solution_of(const std::string& answer, const Options& o) {
    const std::string text = o.calculator ? answer : without_calculator(answer);
    if (o.form != AnswerForm::Boxed) return text;
    const size_t hash = text.rfind("####");
    return text.substr(0, hash) + "\\boxed{" + extract_answer(text, AnswerForm::Hash).value_or("") + "}";
}

Problem problem_of(const Json& record, const std::string& where, const Options& o) {
    if (!record.is_object()) fail(Exit::BadFile, "%s: is not an object", where.c_str());
    Problem problem;
    problem.prompt = get_string(record, "question", where);
    if (has(record, "test_method"))
        fail(Exit::BadFile,
             "%s: is a programming problem (test_method); only answers that are numbers can be checked",
             where.c_str());
    if (has(record, "ground_truth_answer")) {
        problem.answer = get_string(record, "ground_truth_answer", where);
    } else {
        const std::string answer = get_string(record, "answer", where);
        const auto number = extract_answer(answer, AnswerForm::Hash);
        if (!number) fail(Exit::BadFile, "%s: answer does not end in '#### ' and the result", where.c_str());
        problem.answer = *number;
        problem.solution = solution_of(answer, o);
    }
    if (problem.answer.empty()) fail(Exit::BadFile, "%s: the answer is empty", where.c_str());
    return problem;
}

Problems read(const std::string& path, const Options& o) {
    Problems out;
    read_data_file(path, [&](const Json& record, const std::string& where) {
        out.add(problem_of(record, where, o), o.held_out);
    });
    return out;
}

}  // namespace

Task make_file_task(TaskOptions& options, uint64_t) {
    Options o;
    o.held_out = options.number("held_out", 0.1, 0, 1);
    o.format_share = options.number("format", 0, 0, 1);
    o.calculator = options.flag("calculator", false);
    const std::string form = options.choice("answer", {"any", "boxed", "hash"});
    o.form = form == "boxed" ? AnswerForm::Boxed : form == "hash" ? AnswerForm::Hash : AnswerForm::Any;
    options.reject_unknown();  // before a large file is read
    Task task = task_of(read(options.name(), o), options.name());
    task.reward = [o](const Problem& problem, std::string_view response) {
        const auto answer = extract_answer(response, o.form);
        if (!answer) return 0.0;
        return same_answer(*answer, problem.answer) ? 1.0 : o.format_share;
    };
    return task;
}
