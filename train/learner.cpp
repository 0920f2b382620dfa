#include "train/learner.h"

Learner::Learner(Ops& o, const ModelConfig& c, Head h, int block, const MicroBatchLimits& limits,
                 const OptimizerOptions& opt, const LearnerMemory& memory)
    : ops(o),
      config(c),
      head(h),
      options(opt),
      memory_(memory),
      has_master_(memory.weights != DType::F32),
      weight_arena_("weights", o),
      master_arena_("master weights", o) {
    weights.plan(weight_arena_, config, head, memory.weights);
    if (has_master_) master_.plan(master_arena_, config, head);
    network = std::make_unique<TrainingNetwork>(ops, config, weights, head, block, limits, Recompute::None,
                                                memory_.activations);
    optimizer = std::make_unique<Optimizer>(ops, config, head, weights, has_master_ ? &master_ : nullptr,
                                            memory_.moments);
}

void Learner::set_recompute(Recompute recompute) {
    network = std::make_unique<TrainingNetwork>(ops, config, weights, head, network->block(),
                                                network->limits(), recompute, memory_.activations);
}

std::vector<const Arena*> Learner::arenas() const {
    std::vector<const Arena*> all = {&weight_arena_, &network->gradient_arena(), &optimizer->arena()};
    if (has_master_) all.insert(all.begin() + 1, &master_arena_);
    return all;
}

void Learner::allocate() {
    weight_arena_.allocate();
    weights.bind(config);
    if (has_master_) {
        master_arena_.allocate();
        master_.bind(config);
    }
    network->allocate();
    optimizer->allocate();
}

void Learner::initialize(uint64_t seed) {
    if (ops.on_host()) {
        ::initialize(master(), config, seed);
    } else {
        std::vector<float> numbers;
        master().for_each(config, [&](const std::string& name, const Tensor& t) {
            numbers.resize(size_t(t.size()));
            initialize_rows(name, tensor(numbers.data(), t.rows, t.cols), 0, config, seed);
            ops.upload(t, numbers.data());
        });
    }
    master_changed();
}

void Learner::load(const ModelFolder& folder) {
    load_weights(folder, master(), ops);
    master_changed();
}

void Learner::master_changed() {
    if (!has_master_) return;
    std::vector<Tensor> from;
    master_.for_each_stored([&](const std::string&, const Tensor& t) { from.push_back(t); });
    size_t i = 0;
    weights.for_each_stored([&](const std::string&, const Tensor& t) { ops.copy(t, from[i++]); });
}

Learner::Step Learner::step() {
    const Optimizer::Report report = optimizer->update(network->gradients(), options);
    network->zero_gradients();
    return {report.grad_norm, report.lr, report.skipped};
}
