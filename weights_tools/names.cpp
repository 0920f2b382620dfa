#include "weights_tools/names.h"

#include <utility>

#include "utils/error.h"

// LLaDA's names of the parts of a layer. Its ff_proj is the gate (SiLU is applied to it), its ff_out the way
// down.
static constexpr std::pair<const char*, const char*> LLADA_LAYER[] = {
    {"input_layernorm.weight", "attn_norm.weight"}, {"self_attn.q_proj.weight", "q_proj.weight"},
    {"self_attn.k_proj.weight", "k_proj.weight"},   {"self_attn.v_proj.weight", "v_proj.weight"},
    {"self_attn.o_proj.weight", "attn_out.weight"}, {"post_attention_layernorm.weight", "ff_norm.weight"},
    {"mlp.gate_proj.weight", "ff_proj.weight"},     {"mlp.up_proj.weight", "up_proj.weight"},
    {"mlp.down_proj.weight", "ff_out.weight"},
};
static constexpr std::pair<const char*, const char*> LLADA_OUTSIDE[] = {
    {"model.embed_tokens.weight", "model.transformer.wte.weight"},
    {"model.norm.weight", "model.transformer.ln_f.weight"},
    {"lm_head.weight", "model.transformer.ff_out.weight"},
    {"value_head.weight", "value_head.weight"},
};

std::string folder_name(Family family, const std::string& name) {
    if (family != Family::Llada) return name;
    for (const auto& [ours, theirs] : LLADA_OUTSIDE)
        if (name == ours) return theirs;
    const std::string layers = "model.layers.";
    const size_t dot = name.find('.', layers.size());
    if (name.starts_with(layers) && dot != std::string::npos)
        for (const auto& [ours, theirs] : LLADA_LAYER)
            if (name.compare(dot + 1, std::string::npos, ours) == 0)
                return "model.transformer.blocks." + name.substr(layers.size(), dot + 1 - layers.size()) +
                       theirs;
    check_failed(__FILE__, __LINE__, "a tensor of a LLaDA body", name);
}
