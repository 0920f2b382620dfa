#include "inference/generation.h"

#include <algorithm>
#include <cmath>

#include "model/transformer.h"

static bool contains(std::span<const int> ids, int id) {
    return std::find(ids.begin(), ids.end(), id) != ids.end();
}

Geometry geometry_of(const ModelConfig& config) {
    if (config.full_attention) return Geometry::Canvas;
    return config.shift ? Geometry::Autoregressive : Geometry::Blocks;
}

// The autoregressive prompt's last token is every sequence's own: its row predicts the first output token.
static int shared_length(int prompt_length, int block, Geometry geometry) {
    if (geometry == Geometry::Canvas) return 0;
    return geometry == Geometry::Blocks ? prompt_length / block * block : std::max(prompt_length - 1, 0);
}

static int positions(int prompt_length, const GenerateOptions& options, Geometry geometry) {
    if (options.infill) return prompt_length;
    const int limit = prompt_length + options.gen_length;
    return geometry == Geometry::Blocks ? (limit + options.block - 1) / options.block * options.block : limit;
}

Footprint footprint(int prompt_length, const GenerateOptions& options, const ModelConfig& config) {
    const Geometry geometry = geometry_of(config);
    const int shared = shared_length(prompt_length, options.block, geometry);
    const int n = positions(prompt_length, options, geometry), canvases = options.cfg_scale > 0 ? 2 : 1;
    Footprint out = {.shared_slots = shared,
                     .own_slots = canvases * n - shared,
                     .positions = n,
                     .rows = 1,
                     .later_rows = 1};
    if (geometry == Geometry::Blocks) out.rows = 2 * options.block, out.later_rows = options.block;
    if (geometry == Geometry::Canvas) {
        const int lo = options.infill ? 0 : prompt_length;  // the first block has most behind it
        out.rows = canvases * n;
        out.later_rows =
            canvases * canvas_window(lo, std::min(lo + options.block, n), n, options, config.shift).rows();
    }
    return out;
}

Window canvas_window(int lo, int hi, int n, const GenerateOptions& o, bool shift) {
    const int begin = std::max(lo - (shift ? 1 : 0), 0);
    if (o.cache == Cache::Dual) return {begin, hi, n};
    if (o.cache != Cache::Prefix) return {0, n, n};
    const int end = o.further_horizon < 0 ? n : int(std::min(int64_t(hi) + o.further_horizon, int64_t(n)));
    return {begin, end, end};
}

Generation::Generation(const Request& request, const ModelConfig& config)
    : request_(request),
      geometry_(geometry_of(config)),
      mask_id_(config.mask_id),
      shift_(config.shift),
      prompt_length_(request.options.infill ? 0 : int(request.prompt_ids.size())),
      shared_(shared_length(prompt_length_, request.options.block, geometry_)),
      block_(request.options.block) {
    const size_t n = size_t(positions(int(request.prompt_ids.size()), request.options, geometry_));
    limit_ = request.options.infill ? int(n) : prompt_length_ + request.options.gen_length;
    token_ = request.prompt_ids;
    revealed_.assign(token_.size(), 0);
    if (request.options.infill)
        for (size_t i = 0; i < n; i++) revealed_[i] = token_[i] == mask_id_ ? NEVER : 0;
    token_.resize(n, NEVER);
    revealed_.resize(n, NEVER);
    GenerateOptions options = request.options;
    if (options.infill) options.gen_length = int(std::count(revealed_.begin(), revealed_.end(), NEVER));
    rule_ = options.reveal_rule();
    logprob_.resize(n, 0.0f);
    entropy_.resize(n, 0.0f);
    open_block(geometry_ == Geometry::Blocks ? shared_ : prompt_length_);
    if (geometry_ == Geometry::Autoregressive) commit_ = lo_ - 1;
}

void Generation::open_block(int begin) {
    lo_ = begin;
    hi_ = std::min(begin + block_, n_positions());
    block_step_ = 0;
    masked_.clear();
    for (int i = lo_; i < hi_; i++)
        if (revealed_[size_t(i)] == NEVER) masked_.push_back(i);
    if (masked_.empty() && hi_ < n_positions()) open_block(hi_);  // a stretch without gaps
}

Window Generation::window_at(int block_step) const {
    if (geometry_ == Geometry::Autoregressive) return {lo_ - 1, lo_ - 1, lo_ - 1};
    if (geometry_ == Geometry::Blocks) return {lo_, hi_, hi_};
    const int n = n_positions();
    return block_step == 0 ? Window{0, n, n} : canvas_window(lo_, hi_, n, request_.options, shift_);
}

std::vector<int> Generation::ids(int begin, int end) const {
    std::vector<int> out(token_.begin() + begin, token_.begin() + end);
    for (int i = begin; i < end; i++)
        if (revealed_[size_t(i)] == NEVER) out[size_t(i - begin)] = mask_id_;
    return out;
}

std::vector<int> Generation::ids_without_prompt() const {
    std::vector<int> out = ids(0, n_positions());
    for (size_t i = 0; i < out.size(); i++)
        if (revealed_[i] == 0) out[i] = mask_id_;
    return out;
}

SampleRow Generation::sample_row(int position) const {
    const GenerateOptions& o = request_.options;
    return {.seed = o.seed,
            .sequence = request_.sequence,
            .position = uint32_t(position),
            .step = uint32_t(step_ + 1),
            .temperature = o.temperature,
            .top_k = o.top_k,
            .top_p = o.top_p,
            .confidence = o.confidence,
            .draw = o.draw,
            .margin = o.remasking == Remasking::Margin};
}

RevealBlock Generation::reveal_block() const {
    return {.count = int(masked_.size()), .step = block_step_, .rule = rule_};
}

bool Generation::ends_at(size_t i) const {
    const int from = masked_[i], to = i + 1 < masked_.size() ? masked_[i + 1] : from + 1;
    const std::span<const int> stops = stop_ids();
    if (from == limit_ - 1) return true;
    for (int p = from + 1; p < to && p < limit_; p++)  // known already
        if (contains(stops, token_[size_t(p)]) || p == limit_ - 1) return true;
    return false;
}

void Generation::reveal(std::span<const RevealTarget> targets, int steps) {
    CHECK(targets.size() == masked_.size(), "%zu targets for %zu masks", targets.size(), masked_.size());
    for (int s = 1; s <= steps; s++) {
        CHECK(!finished(), "step %d of %d comes after the end", s, steps);
        step_++;
        block_step_++;
        for (size_t i = 0; i < targets.size(); i++) {
            if (targets[i].step != s) continue;
            if (!std::isfinite(targets[i].logprob))
                fail_not_finite(format("sequence %u, position %d", request_.sequence, masked_[i]));
            const size_t position = size_t(masked_[i]);
            token_[position] = targets[i].token;
            logprob_[position] = targets[i].logprob;
            entropy_[position] = targets[i].entropy;
            revealed_[position] = step_;
        }
        check_end();
    }
    std::erase_if(masked_, [&](int i) { return revealed_[size_t(i)] != NEVER; });
    if (finished() || !masked_.empty()) return;
    commit_ = geometry_ == Geometry::Canvas ? -1 : lo_;
    open_block(hi_);
}

std::span<const int> Generation::stop_ids() const {
    if (request_.options.infill) return {};
    return request_.options.stop_ids;
}

// A stop id, or the limit, with everything before it revealed.
void Generation::check_end() {
    for (int i = prompt_length_ + n_final_; i < limit_ && revealed_[size_t(i)] != NEVER; i++) {
        n_final_++;
        if (contains(stop_ids(), token_[size_t(i)])) {
            finish_reason_ = "stop";
            return;
        }
        if (i == limit_ - 1) finish_reason_ = "length";
    }
}

PartialResponse Generation::progress() const {
    const size_t from = size_t(prompt_length_);
    const size_t to = geometry_ == Geometry::Canvas ? token_.size() : size_t(std::max(hi_, prompt_length_));
    return {.token = std::span(token_).subspan(from, to - from),
            .step = std::span(revealed_).subspan(from, to - from),
            .logprob = std::span(logprob_).subspan(from, to - from),
            .n_final = n_final_};
}

Trajectory Generation::trajectory() const {
    const PartialResponse p = progress();
    const auto n = size_t(n_final_);
    // A block that was opened and never denoised is no part of the record.
    const bool untouched = geometry_ != Geometry::Canvas && block_step_ == 0;
    const size_t end = untouched ? n : p.token.size();
    const auto part = [](const auto& span, size_t begin, size_t end) {
        return std::vector(span.begin() + long(begin), span.begin() + long(end));
    };
    Trajectory t;
    t.prompt_ids = request_.prompt_ids;
    t.output_ids = part(p.token, 0, n);
    t.step_map = part(p.step, 0, n);
    t.logprobs = part(p.logprob, 0, n);
    t.tail_ids = part(p.token, n, end);
    t.tail_steps = part(p.step, n, end);
    t.finish_reason = finish_reason_ ? finish_reason_ : "interrupted";
    if (request_.options.approximate_cache()) t.cache = name_of(request_.options.cache);
    t.cfg_scale = request_.options.cfg_scale;
    t.denoise_steps = step_;
    t.forward_passes = forward_passes;
    for (size_t i = 0; i < n; i++) t.entropy += double(entropy_[size_t(prompt_length_) + i]);
    t.entropy /= double(std::max<int64_t>(generated_tokens(t), 1));
    return t;
}
