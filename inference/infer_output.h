// infer_output.h -- what `infer` prints: text as it becomes final, JSON lines, and a summary for people.
#pragma once
#include <optional>
#include <span>

#include "inference/engine.h"
#include "inference/infer_inputs.h"
#include "utils/json_forward.h"

// Which prompt and which sample of it a request is.
struct Asked {
    const Prompt* prompt;
    int sample;
};

// The object of --json for one finished sample. load_s: seconds of loading, the same for all.
Json answer_json(const Trajectory& trajectory, const Asked& asked, const TextModel& text, double load_s);

// Prints finished answers in the order of requests, whatever the order they finish in.
class AnswerPrinter {
  public:
    AnswerPrinter(FILE* out, std::span<const Asked> asked, const TextModel& text, bool json, double load_s);
    // A single answer's text is printed as far as it is final.
    void reveal(const PartialResponse& so_far, const GenerateOptions& options);
    void finish(int request, const Trajectory& trajectory);
    int n_finished() const { return n_finished_; }  // of their own accord: those interrupted do not count

  private:
    void print(int request, const Trajectory& trajectory);
    std::string stream(std::span<const int> ids);
    FILE* out_;
    std::span<const Asked> asked_;
    const TextModel& text_;
    const bool json_;
    const double load_s_;
    std::optional<StreamDecoder> decoder_;
    size_t streamed_ = 0;  // tokens of the only answer that are printed
    std::vector<std::optional<Trajectory>> done_;
    size_t next_ = 0;
    int n_finished_ = 0;
};

// "52 tokens in 0.31 s (168 tokens/s), 20 forward passes, 2.60 tokens per forward, stop"
std::string summary(std::span<const Trajectory> trajectories, int64_t forward_passes, double seconds);
