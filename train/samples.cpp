#include "train/samples.h"

#include <algorithm>

#include "tokenizer/unicode.h"
#include "utils/json.h"

Json sample_json(const Response& response, const Problem& problem) {
    Json line = to_json(response.trajectory);
    line["group"] = response.problem;
    line["reward"] = response.reward;
    if (!response.graded) line["graded"] = false;
    if (!response.token_rewards.empty()) line["token_rewards"] = response.token_rewards;
    line["prompt"] = problem.prompt;
    line["answer"] = problem.answer;
    line["text"] = response.text;
    return line;
}

std::string reveal_order(const Response& response, const Problem& problem, const TextCodec& codec) {
    const Trajectory& t = response.trajectory;
    std::string text, steps;
    for (size_t i = 0; i < t.output_ids.size(); i++) {
        std::string piece = codec.decode(std::span(&t.output_ids[i], 1));
        if (piece.empty()) piece = ".";  // a special token: the end
        std::replace(piece.begin(), piece.end(), '\n', ' ');
        const std::string step = std::to_string(t.step_map[i]);
        const size_t shown = size_t(columns(piece)), width = std::max(shown, step.size()) + 1;
        text += piece + std::string(width - shown, ' ');
        steps += step + std::string(width - step.size(), ' ');
    }
    return format("  %s  %s (%s), %d tokens in %d forward passes\n    %s\n    %s\n", problem.prompt.c_str(),
                  response.text.c_str(), response.right() ? "right" : "wrong", int(t.output_ids.size()),
                  t.forward_passes, text.c_str(), steps.c_str());
}
