#include "model/packed_weights.h"

PackedWeights::PackedWeights(Ops& ops, const ModelConfig& config, const Parameters& weights, Arena& arena)
    : ops_(ops), weights_(weights), tied_(config.tied), view_(weights) {
    const std::vector<Tensor*> matrices = multiplied();
    copies_.resize(matrices.size());
    for (size_t i = 0; i < matrices.size(); i++) {
        const Tensor shape = ops.packed_shape(*matrices[i]);
        if (!shape.rows) continue;
        const char* of_layer[] = {"qkv", "out", "gate up", "down"};
        const bool head = i + 1 == matrices.size();
        arena.add(&copies_[i],
                  head ? "lm head, packed" : format("layer %zu %s, packed", i / 4, of_layer[i % 4]),
                  shape.rows, shape.cols, shape.dtype);
    }
}

std::vector<Tensor*> PackedWeights::multiplied() {
    std::vector<Tensor*> out;
    for (LayerParameters& p : view_.layers) out.insert(out.end(), {&p.qkv, &p.out, &p.gate_up, &p.down});
    out.push_back(tied_ ? &view_.embedding : &view_.lm_head);
    return out;
}

void PackedWeights::renew() {
    view_ = weights_;
    const std::vector<Tensor*> matrices = multiplied();
    for (size_t i = 0; i < matrices.size(); i++) {
        if (!copies_[i]) continue;
        ops_.pack(copies_[i], *matrices[i]);
        matrices[i]->packed = copies_[i].data;
    }
    if (tied_) view_.lm_head = view_.embedding;
}
