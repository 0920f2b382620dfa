#include "inference/infer_output.h"

#include <algorithm>
#include <map>

#include "inference/pieces.h"
#include "utils/json.h"

Json answer_json(const Trajectory& t, const Asked& asked, const TextModel& text, double load_s) {
    Json out = Json::object();
    if (!asked.prompt->id.is_null()) out["id"] = asked.prompt->id;
    out["sample"] = asked.sample;
    const Json record = to_json(t);
    for (const auto& [key, value] : record.items()) {
        if (key == "finish_reason")
            out["text"] =
                text.tokenizer ? Json(output_text(*text.tokenizer, t.output_ids, t.finish_reason)) : Json();
        out[key] = value;
    }
    out["timings"] = {{"load_s", load_s}, {"prefill_s", t.prefill_s}, {"generate_s", t.generate_s}};
    return out;
}

AnswerPrinter::AnswerPrinter(FILE* out, std::span<const Asked> asked, const TextModel& text, bool json,
                             double load_s)
    : out_(out), asked_(asked), text_(text), json_(json), load_s_(load_s), done_(asked.size()) {
    if (text.tokenizer) decoder_.emplace(*text.tokenizer, true);
}

std::string AnswerPrinter::stream(std::span<const int> ids) {
    std::string out;
    for (const int id : ids) {
        if (decoder_)
            out += decoder_->feed(id);
        else
            out += (streamed_ ? " " : "") + std::to_string(id);
        streamed_++;
    }
    return out;
}

void AnswerPrinter::reveal(const PartialResponse& so_far, const GenerateOptions& options) {
    if (json_ || asked_.size() != 1) return;
    size_t n = size_t(so_far.n_final);
    const std::vector<int>& stops = options.stop_ids;
    if (n > 0 && std::find(stops.begin(), stops.end(), so_far.token[n - 1]) != stops.end()) n--;
    if (n <= streamed_) return;
    const std::string text = stream(so_far.token.subspan(streamed_, n - streamed_));
    fwrite(text.data(), 1, text.size(), out_);
    fflush(out_);
}

void AnswerPrinter::finish(int request, const Trajectory& trajectory) {
    done_[size_t(request)] = trajectory;
    n_finished_ += trajectory.finish_reason != "interrupted";
    for (; next_ < done_.size() && done_[next_]; next_++) {
        print(int(next_), *done_[next_]);
        done_[next_] = Trajectory();  // printed: its memory goes
    }
    fflush(out_);
}

void AnswerPrinter::print(int request, const Trajectory& t) {
    const Asked& asked = asked_[size_t(request)];
    if (t.denoise_steps == 0) return;  // interrupted before it began
    if (json_) {
        fprintf(out_, "%s\n", dump(answer_json(t, asked, text_, load_s_)).c_str());
        return;
    }
    if (asked_.size() > 1) {  // a heading tells answers apart
        const std::string id = asked.prompt->id.is_null() ? "" : " " + dump(asked.prompt->id);
        fprintf(out_, "%s--- answer%s, sample %d\n", request ? "\n" : "", id.c_str(), asked.sample);
        streamed_ = 0;
    }
    const size_t n = t.output_ids.size() - (t.finish_reason == "stop" ? 1 : 0);
    std::string text = stream(std::span(t.output_ids).subspan(streamed_, n - streamed_));
    if (decoder_) text += decoder_->flush();
    fprintf(out_, "%s\n", text.c_str());
}

std::string summary(std::span<const Trajectory> trajectories, int64_t forward_passes, double seconds) {
    int64_t tokens = 0, passes = 0;
    std::map<std::string, int> reasons;
    for (const Trajectory& t : trajectories) {
        tokens += generated_tokens(t);
        passes += t.forward_passes;
        reasons[t.finish_reason]++;
    }
    std::string why;
    for (const auto& [reason, count] : reasons)
        why += ", " + (trajectories.size() > 1 ? format("%d x ", count) : "") + reason;
    return format("%lld tokens in %.2f s (%.1f tokens/s), %lld forward passes, %.2f tokens per forward%s%s",
                  (long long)tokens, seconds, seconds > 0 ? double(tokens) / seconds : 0.0,
                  (long long)forward_passes, passes ? double(tokens) / double(passes) : 0.0,
                  trajectories.size() > 1 ? " and sequence" : "", why.c_str());
}
