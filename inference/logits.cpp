#include "inference/logits.h"

#include <cmath>

#include "inference/generation.h"
#include "model/layout_generate.h"
#include "weights_tools/safetensors.h"

void check_logits(std::span<const int> ids, const ModelConfig& config) {
    if (ids.empty()) fail(Exit::Usage, "--logits: the prompt is empty");
    if (ids.size() > size_t(config.max_positions))
        fail(Exit::Usage, "--logits: %zu ids, the model has %d positions", ids.size(), config.max_positions);
    for (const int id : ids)
        if (id < 0 || id >= config.V)
            fail(Exit::Usage, "--logits: id %d: ids run from 0 to %d", id, config.V - 1);
}

void write_logits(const std::string& path, std::span<const int> ids, int block, Ops& ops,
                  const ModelConfig& config, const Parameters& weights,
                  const std::function<bool(Arena&)>& ready) {
    check_logits(ids, config);
    const int T = int(ids.size());
    Arena arena("logits", ops);
    KvCache cache;
    cache.plan(arena, config, T, activation_dtype(ops, weights));
    Tensor logits;
    arena.add(&logits, "logits", T, config.V);
    Transformer network(ops, config, weights, arena, T, T, &cache);
    if (!ready(arena)) return;

    const Geometry geometry = geometry_of(config);
    const int B = geometry == Geometry::Canvas ? T : block,
              whole = geometry == Geometry::Canvas ? 0 : T / B * B;
    TokenBatch batch;
    add_prompt(batch, ids, 0, whole, B, 0);
    if (whole < T)
        add_block(batch, ids.subspan(size_t(whole)), whole, {.shared = whole, .prefix = 0, .own = whole});
    const bool shifted = geometry == Geometry::Canvas && config.shift;
    for (int i = 0; i < T; i++) batch.target_row.push_back(shifted ? std::max(i - 1, 0) : i);
    ops.linear_forward(logits, network.forward(batch), weights.lm_head);

    std::vector<float> host(size_t(T) * size_t(config.V));
    ops.download(host.data(), logits);
    for (size_t i = 0; i < host.size(); i++)
        if (!std::isfinite(host[i])) fail_not_finite(format("logits of position %zu", i / size_t(config.V)));
    save_tensors(path, {{.name = "logits", .from = tensor(host.data(), T, config.V)}});
}
