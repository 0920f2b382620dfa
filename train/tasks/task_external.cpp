// task_external.cpp -- rewards by a command: a judge, a verifier of another project, a process reward model.
//
//   external:problems=FILE,command=COMMAND,timeout=60,held_out=0.1
//
// FILE is a JSON array or JSON lines; every record has a `question`, may have a `solution` for SFT, and goes to
// the command whole. COMMAND is run by the shell, once, and stays: per response it reads a line
//
//   {"id": 0, "prompt": "...", "response": "...", "tokens": ["...", ...], "record": {...}}
//
// (id: of the question asked, another one every time; tokens: the response's, stop token included;
// `eval --grade-only` knows them with --tokenizer only) and writes, in any order, a line
//
//   {"id": 0, "reward": 1}                                      1: right
//   {"id": 0, "token_rewards": [0, 0.5, ...]}                   one per token
//   {"id": 0, "chunks": [{"end": 12, "reward": 0.5}, ...]}      every token before `end` and after the chunk before
//
// `reward` beside the others is what accuracy and the choice of groups go by; without it the mean of the token
// rewards is. It must be a function of the line alone, or a resumed run is not the uninterrupted one. No line for
// `timeout` seconds, an end of the command, or a line that is none of these: it is started again, and the response
// it has stopped at twice is not graded. When it grades nothing time after time, all that is left is not graded.
#include <algorithm>
#include <memory>

#include "train/tasks/task.h"
#include "utils/error.h"
#include "utils/json.h"
#include "utils/json_fields.h"
#include "utils/line_process.h"
#include "utils/log.h"

namespace {

constexpr int STARTS_FOR_NOTHING = 3;  // in a row

std::vector<double> token_rewards(const Json& line, size_t n_tokens, const std::string& where) {
    std::vector<double> out;
    if (n_tokens == 0)
        fail(Exit::Usage,
             "task 'external': its command rewards single tokens, and which they are is not known; name the "
             "model's tokenizer with --tokenizer DIR");
    if (has(line, "chunks")) {
        for (const Json& chunk : line.at("chunks")) {
            const int64_t end = get_int(chunk, "end", where, int64_t(out.size()) + 1, int64_t(n_tokens));
            out.resize(size_t(end), get_finite(chunk, "reward", where));
        }
    } else {
        out = get_numbers(line, "token_rewards", where);
    }
    if (out.size() != n_tokens)
        fail(Exit::BadFile, "%s: rewards %zu tokens, the response has %zu", where.c_str(), out.size(),
             n_tokens);
    return out;
}

Verdict verdict_of(const Json& line, size_t n_tokens, const std::string& where) {
    Verdict out;
    if (has(line, "chunks") || has(line, "token_rewards")) {
        out.token_rewards = token_rewards(line, n_tokens, where);
        for (const double r : out.token_rewards) out.reward += r;
        out.reward /= double(n_tokens);  // once: 1 for every token is exactly 1
        if (!has(line, "reward")) return out;
    }
    out.reward = get_finite(line, "reward", where);
    return out;
}

class Judge {
  public:
    Judge(std::string command, double timeout_s) : command_(std::move(command)), timeout_s_(timeout_s) {}

    std::vector<Verdict> grade(std::span<const Answer> answers, const std::function<bool()>& should_stop) {
        std::vector<Verdict> out(answers.size(), {.reward = 0, .token_rewards = {}, .graded = false});
        std::vector<size_t> waiting(answers.size());
        for (size_t i = 0; i < answers.size(); i++) waiting[i] = i;
        for (int in_vain = 0; !waiting.empty() && in_vain < STARTS_FOR_NOTHING;) {
            const size_t before = waiting.size();
            std::string fault;
            const LineProcess::End end = ask(answers, waiting, out, fault, should_stop);
            first_id_ += answers.size();  // answers that come late, or twice, are passed over
            if (end == LineProcess::End::Interrupted) return out;
            if (fault.empty()) continue;
            process_.reset();
            in_vain = waiting.size() < before ? 0 : in_vain + 1;
            log_warning("task 'external': %s; '%s' is started again%s", fault.c_str(), command_.c_str(),
                        in_vain ? ", without the response it stopped at" : "");
            if (in_vain && !waiting.empty()) waiting.erase(waiting.begin());
        }
        return out;
    }

  private:
    // Asks for all that wait and takes what is answered off the list; `fault` says why not all was.
    LineProcess::End ask(std::span<const Answer> answers, std::vector<size_t>& waiting,
                         std::vector<Verdict>& out, std::string& fault,
                         const std::function<bool()>& should_stop) {
        if (!process_) process_ = std::make_unique<LineProcess>(command_);
        std::string lines;
        for (const size_t i : waiting) {
            const Answer& a = answers[i];
            lines +=
                dump({{"id", first_id_ + i},
                      {"prompt", a.problem->prompt},
                      {"response", a.text},
                      {"tokens", std::vector<std::string>(a.tokens.begin(), a.tokens.end())},
                      {"record", parse_json(a.problem->answer, "task 'external': record of a problem")}}) +
                "\n";
        }
        const auto on_line = [&](std::string_view text) {
            try {
                const Json line = parse_json(text, "its answer");
                const auto id = size_t(get_int(line, "id", "its answer", 0, INT64_MAX)), i = id - first_id_;
                if (id < first_id_) return true;
                const auto place = std::find(waiting.begin(), waiting.end(), i);
                if (place == waiting.end()) fail(Exit::BadFile, "its answer %zu was not asked for", id);
                out[i] = verdict_of(line, answers[i].tokens.size(), format("its answer %zu", id));
                waiting.erase(place);
            } catch (const Error& error) {
                if (error.code == Exit::Usage) throw;
                fault = error.what();
                return false;
            }
            return !waiting.empty();
        };
        const LineProcess::End end = process_->exchange(lines, on_line, timeout_s_, should_stop);
        if (end == LineProcess::End::TimedOut) fault = format("no answer within %g s", timeout_s_);
        if (end == LineProcess::End::Exited) fault = "it ended before it had answered all";
        return end;
    }

    std::string command_;
    double timeout_s_;
    std::unique_ptr<LineProcess> process_;
    size_t first_id_ = 0;  // ids count on from one call to the next
};

Problems read(const std::string& path, double held_out_share) {
    Problems out;
    read_data_file(path, [&](const Json& record, const std::string& where) {
        Problem problem;
        problem.prompt = get_string(record, "question", where);
        if (has(record, "solution")) problem.solution = get_string(record, "solution", where);
        problem.answer = dump(record);
        out.add(std::move(problem), held_out_share);
    });
    return out;
}

}  // namespace

Task make_external(TaskOptions& options, uint64_t) {
    const std::string path = options.text("problems", ""), command = options.text("command", "");
    const double timeout_s = options.number("timeout", 60, 0.01, 1e6),
                 held_out = options.number("held_out", 0.1, 0, 1);
    options.reject_unknown();
    if (path.empty()) fail(Exit::Usage, "task 'external': problems=FILE is missing");
    if (command.empty())
        fail(Exit::Usage, "task 'external': command=COMMAND is missing, the program that gives the rewards");
    Task task = task_of(read(path, held_out), path);
    const auto judge = std::make_shared<Judge>(command, timeout_s);
    task.judge = [judge](std::span<const Answer> answers, const std::function<bool()>& should_stop) {
        return judge->grade(answers, should_stop);
    };
    return task;
}
