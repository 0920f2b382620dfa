#include "train/learner.h"

void check_fits(const Ops& ops, size_t planned_bytes) {
    const size_t available = available_host_memory();
    if (ops.on_host() && planned_bytes > available)
        fail(Exit::NoMemory,
             "%.0f MiB are needed (--dry-run lists them), %.0f MiB are free; use a smaller model, lower "
             "--token-budget, or shorten the responses",
             double(planned_bytes) / (1 << 20), double(available) / (1 << 20));
}

Learner::Learner(Ops& o, const ModelConfig& c, Head h, int block, const MicroBatchLimits& limits,
                 const OptimizerOptions& opt)
    : ops(o), config(c), head(h), options(opt), weight_arena_("weights", o) {
    weights.plan(weight_arena_, config, head);
    network = std::make_unique<TrainingNetwork>(ops, config, weights, head, block, limits);
    optimizer = std::make_unique<Optimizer>(ops, config, head, weights);
}

void Learner::allocate() {
    weight_arena_.allocate();
    weights.bind(config);
    network->allocate();
    optimizer->allocate();
}

size_t Learner::planned_bytes() const {
    return weight_arena_.bytes() + network->gradient_arena().bytes() + network->activation_arena().bytes() +
           optimizer->arena().bytes();
}

void Learner::print_plan(FILE* out) const {
    const auto line = [out](const char* what, const Arena& arena) {
        fprintf(out, "  %-24s %10.1f MiB\n", what, double(arena.bytes()) / (1 << 20));
    };
    line("weights", weight_arena_);
    line("gradients", network->gradient_arena());
    line("optimizer moments", optimizer->arena());
    line("activations", network->activation_arena());
}

Learner::Step Learner::step() {
    const Optimizer::Report report = optimizer->update(network->gradients(), options);
    network->zero_gradients();
    return {report.grad_norm, report.lr, report.skipped};
}
