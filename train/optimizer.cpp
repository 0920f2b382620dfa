#include "train/optimizer.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "weights_tools/safetensors.h"

double learning_rate(const OptimizerOptions& o, int64_t step) {
    if (step < o.warmup_steps) return o.lr * double(step + 1) / double(o.warmup_steps);
    if (o.schedule == Schedule::Constant) return o.lr;
    const double span = double(std::max<int64_t>(o.total_steps - o.warmup_steps, 1));
    const double progress = std::min(double(step - o.warmup_steps) / span, 1.0);
    return o.lr * (o.min_lr_ratio + (1 - o.min_lr_ratio) * 0.5 * (1 + std::cos(std::numbers::pi * progress)));
}

Optimizer::Optimizer(Ops& ops, const ModelConfig& config, Head head, const Parameters& weights,
                     const Parameters* master, DType moments)
    : ops_(ops), config_(config), weights_(weights), master_(master), arena_("optimizer moments", ops) {
    m_.plan(arena_, config, head, moments);
    v_.plan(arena_, config, head, moments);
}

void Optimizer::allocate() {
    arena_.allocate();
    m_.bind(config_);
    v_.bind(config_);
}

void Optimizer::reset() {
    for (const Parameters* p : {&m_, &v_})
        p->for_each_stored([&](const std::string&, const Tensor& t) { ops_.zero(t); });
    steps_ = 0;
}

static std::vector<Tensor> stored(const Parameters& p) {
    std::vector<Tensor> out;
    p.for_each_stored([&](const std::string&, const Tensor& t) { out.push_back(t); });
    return out;
}

Optimizer::Report Optimizer::update(const Parameters& gradients, const OptimizerOptions& o) {
    const std::vector<Tensor> m = stored(m_), v = stored(v_), grad = stored(gradients),
                              master = master_ ? stored(*master_) : std::vector<Tensor>(m.size());
    const double norm = std::sqrt(ops_.sum_of_squares(grad)), lr = learning_rate(o, steps_);
    if (!std::isfinite(norm)) return {norm, lr, true};

    const bool clip = o.max_grad_norm > 0 && norm > o.max_grad_norm;
    AdamW adamw = {.lr = float(lr),
                   .beta1 = float(o.beta1),
                   .beta2 = float(o.beta2),
                   .eps = float(o.eps),
                   .weight_decay = 0,
                   .step = steps_ + 1,
                   .grad_scale = clip ? float(o.max_grad_norm / norm) : 1.0f};
    size_t i = 0;
    weights_.for_each_stored([&](const std::string& name, const Tensor& weight) {
        adamw.weight_decay = is_vector(name) ? 0 : float(o.weight_decay);
        ops_.adamw(weight, m[i], v[i], grad[i], adamw, master[i]);
        i++;
    });
    steps_++;
    return {norm, lr, false};
}

// Both moments of every stored tensor, named by it; the update count is the only row of "steps".
static std::vector<Save> saves(const Parameters& m, const Parameters& v) {
    std::vector<Save> out;
    for (const auto& [prefix, moments] : {std::pair("m.", &m), std::pair("v.", &v)})
        moments->for_each_stored([&, prefix = prefix](const std::string& name, const Tensor& t) {
            out.push_back({.name = prefix + name, .from = t, .vector = is_vector(name), .dtype = t.dtype});
        });
    return out;
}

// The count as two halves: safetensors has no 64-bit integers here.
static std::array<int, 2> halves(int64_t steps) { return {int(steps >> 31), int(steps & INT32_MAX)}; }

void Optimizer::save(const std::string& path) const {
    std::vector<Save> all = saves(m_, v_);
    Arena arena("update count", ops_);
    Tensor count;
    arena.add(&count, "steps", 1, 2, DType::I32);
    arena.allocate();
    ops_.upload(count, halves(steps_).data());
    all.push_back({.name = "steps", .from = count, .vector = true, .dtype = DType::I32});
    save_tensors(path, all, ops_);
}

void Optimizer::load(const std::string& path) {
    const SafetensorsFile file(path);
    std::vector<Load> loads;
    for (const Save& s : saves(m_, v_)) {
        const FileTensor& from = file.get(s.name);
        const std::vector<int64_t> shape = described(s).shape;
        if (from.shape != shape || from.dtype != s.dtype)
            fail(Exit::BadFile, "%s: tensor '%s' is %s %s, the model's is %s %s", path.c_str(),
                 s.name.c_str(), name_of(from.dtype), show_shape(from.shape).c_str(), name_of(s.dtype),
                 show_shape(shape).c_str());
        loads.push_back({&from, s.from});
    }
    std::array<int, 2> count{};
    const FileTensor& steps = file.get("steps");
    if (steps.size() != 2 || steps.dtype != DType::I32)
        fail(Exit::BadFile, "%s: tensor 'steps' is not two integers", path.c_str());
    load_tensors({{&steps, tensor(count.data(), 1, 2, DType::I32)}});
    load_tensors(loads, ops_);
    steps_ = int64_t(count[0]) << 31 | count[1];
}
