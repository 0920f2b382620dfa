#include "train/sft_run.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "train/objective.h"
#include "train/report/report.h"
#include "utils/json.h"
#include "utils/log.h"
#include "utils/timer.h"

namespace {

constexpr int BAD_UPDATES_TO_STOP = 3;
constexpr uint32_t EVALUATION = 1u << 31;  // substreams of masks: the lower half belongs to training

// The states of a batch, and every target's part in the loss.
struct Batch {
    std::vector<Sequence> sequences;
    std::vector<std::vector<LossPair>> pairs;
    int64_t n_trained = 0;
};

Batch make_batch(std::span<const SftExample> examples, std::span<const size_t> indices,
                 const MaskShape& shape, const SftMaskOptions& masks, Rng& rng) {
    Batch batch;
    std::vector<std::vector<double>> weights;
    int64_t n_response = 0;
    for (const size_t i : indices) {
        SftExample example = examples[i];
        example.copies = sft_copies(example, shape, masks, rng);
        batch.sequences.push_back(sft_sequence(example, shape));
        weights.push_back(sft_weights(example));
        batch.n_trained += int64_t(weights.back().size());
        n_response += int64_t(example.response_ids.size());
    }
    batch.pairs = cross_entropy_pairs(weights, double(n_response));
    return batch;
}

}  // namespace

static int64_t steps_per_epoch(size_t n_examples, int batch) {
    return (int64_t(n_examples) + batch - 1) / batch;
}

int64_t steps_of(const SftRunOptions& o, size_t n_examples) {
    const int64_t steps = std::max<int64_t>(
        std::llround(std::ceil(o.epochs * double(steps_per_epoch(n_examples, o.batch)))), 1);
    return o.max_steps ? std::min(o.max_steps, steps) : steps;
}

std::vector<size_t> batch_indices(size_t n, int batch, uint64_t seed, int64_t step) {
    const int64_t per_epoch = steps_per_epoch(n, batch), epoch = step / per_epoch;
    std::vector<size_t> order(n);
    std::iota(order.begin(), order.end(), size_t(0));
    Rng rng(seed, Stream::Shuffle, uint32_t(epoch));
    for (size_t i = n; i > 1; i--) std::swap(order[i - 1], order[rng.below(uint32_t(i))]);
    const size_t begin = size_t(step % per_epoch) * size_t(batch);
    return {order.begin() + std::ptrdiff_t(begin),
            order.begin() + std::ptrdiff_t(std::min(begin + size_t(batch), n))};
}

MicroBatchLimits largest_example(std::span<const SftExample> examples, const MaskShape& shape,
                                 const SftMaskOptions& masks) {
    MicroBatchLimits largest = {1, 1};
    SftMaskOptions single = masks;
    single.complementary = false;
    for (SftExample e : examples) {
        Rng rng(0, Stream::Mask);
        e.copies = sft_copies(e, shape, single, rng);
        const Sequence s = sft_sequence(e, shape);
        int64_t tokens = needed_limits({&s, 1}, shape.block).max_tokens;
        if (masks.complementary && shape.block)  // at most one more for every copy
            for (const Copy& copy : s.copies) tokens += int64_t(copy.token.size());
        largest.max_tokens = std::max(largest.max_tokens, int(tokens));
        largest.max_targets = std::max(largest.max_targets, int(e.response_ids.size()));
    }
    return largest;
}

SftRun::SftRun(const SftRunOptions& options, Learner& learner, std::vector<SftExample> train,
               std::vector<SftExample> held_out, RunFolder& folder,
               std::function<void(const std::string&)> save)
    : options_(options),
      learner_(learner),
      train_(std::move(train)),
      held_out_(std::move(held_out)),
      folder_(folder),
      save_(std::move(save)),
      n_steps_(steps_of(options, train_.size())) {}

SftRun::Step SftRun::train_step() {
    Rng rng(options_.seed, Stream::Mask, uint32_t(step_));
    const MaskShape shape = {learner_.network->block(), learner_.config.mask_id};
    const Batch batch = make_batch(train_, batch_indices(train_.size(), options_.batch, options_.seed, step_),
                                   shape, options_.masks, rng);
    Step out;
    const int64_t before = learner_.network->tokens_forwarded();
    learner_.network->accumulate(
        batch.sequences, {.pairs = batch.pairs, .outputs = [&](int i, std::span<const double> logprob) {
                              out.loss += cross_entropy(logprob, batch.pairs[size_t(i)]);
                              for (const double lp : logprob) out.nll -= lp / double(batch.n_trained);
                          }});
    out.tokens = learner_.network->tokens_forwarded() - before;
    out.update = learner_.step();
    return out;
}

double SftRun::evaluate() {
    const MaskShape shape = {learner_.network->block(), learner_.config.mask_id};
    std::vector<Sequence> sequences;
    for (size_t i = 0; i < held_out_.size(); i++) {
        Rng rng(options_.seed, Stream::Mask, EVALUATION + uint32_t(i));
        SftExample e = held_out_[i];
        e.copies = sft_copies(e, shape, options_.masks, rng);
        sequences.push_back(sft_sequence(e, shape));
    }
    double sum = 0, n = 0;
    for (const std::vector<double>& logprobs : learner_.network->evaluate(sequences))
        for (const double lp : logprobs) sum -= lp, n++;
    return n ? sum / n : 0;
}

bool SftRun::run(const std::function<bool()>& should_stop) {
    const int64_t per_epoch = steps_per_epoch(train_.size(), options_.batch);
    const int64_t eval_every = options_.eval_every ? options_.eval_every : per_epoch;
    const bool is_done = step_ >= n_steps_;
    if (is_done)
        log_info("all %lld updates were made before; more with --epochs or --max-steps", (long long)step_);
    ProgressBar progress("SFT", n_steps_, is_done ? ProgressStyle::None : options_.progress);
    double held_out = NAN;
    while (step_ < n_steps_) {
        if (should_stop()) {
            save_checkpoint();
            return false;
        }
        Timer timer;
        const Step s = train_step();
        const double seconds = timer.seconds();
        step_++;
        Json line = {{"step", step_},
                     {"epoch", double(step_) / double(per_epoch)},
                     {"loss", s.loss},
                     {"nll", s.nll},
                     {"grad_norm", s.update.grad_norm},
                     {"lr", s.update.lr},
                     {"tokens", s.tokens},
                     {"seconds", seconds}};
        if (!held_out_.empty() && (step_ % eval_every == 0 || step_ == n_steps_))
            line["eval_nll"] = held_out = evaluate();
        if (s.update.skipped) line["skipped_updates"] = 1;
        folder_.metrics(line);
        bad_updates_ = s.update.skipped ? bad_updates_ + 1 : 0;
        if (s.update.skipped)
            log_warning("step %lld: the gradient is not finite; the update was skipped", (long long)step_);
        progress.update(
            step_, format("epoch %.2f  loss %.4f%s  %.0f tokens/s", double(step_) / double(per_epoch), s.nll,
                          std::isnan(held_out) ? "" : format("  held out %.4f", held_out).c_str(),
                          double(s.tokens) / seconds));
        if (bad_updates_ >= BAD_UPDATES_TO_STOP) {
            save_checkpoint();
            fail(Exit::Runtime,
                 "%d updates in a row had gradients that are not finite; the weights before them are saved "
                 "in %s: try a lower --lr",
                 bad_updates_, folder_.latest().c_str());
        }
        if (options_.save_every && step_ % options_.save_every == 0 && step_ < n_steps_) save_checkpoint();
    }
    progress.finish();
    save_checkpoint();
    return true;
}

void SftRun::save_checkpoint() {
    folder_.checkpoint(step_, options_.keep, [&](const std::string& path) {
        save_(path);
        learner_.optimizer->save(path + "/optimizer.safetensors");
        write_file_atomic(path + "/state.json",
                          dump({{"step", step_}, {"bad_updates", bad_updates_}}) + "\n");
    });
    write_report(folder_.path());
}

void SftRun::resume(const std::string& checkpoint) {
    const std::string where = checkpoint + "/state.json";
    const Json state = read_json(where);
    step_ = get_int(state, "step", where, 0, INT64_MAX);
    bad_updates_ = int(get_int(state, "bad_updates", where, 0, BAD_UPDATES_TO_STOP));
    learner_.optimizer->load(checkpoint + "/optimizer.safetensors");
    folder_.truncate_metrics(step_);
}
