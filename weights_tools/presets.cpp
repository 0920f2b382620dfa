#include "weights_tools/presets.h"

#include "utils/error.h"

namespace {
struct Preset {
    const char* name;
    Family family;
    int C, L, NH, NKV, HD, F;
    int V, mask_id;
    std::vector<int> eos_ids;  // the end of a turn first, the end of a text last
    double rope_theta;
    float rms_eps;
    int max_positions;
    bool tied;
};

const std::vector<Preset>& presets() {
    static const std::vector<int> qwen3_stops = {151645, 151643};
    static const std::vector<Preset> table = {
        {"tiny", Family::Sdar, 128, 4, 4, 2, 32, 384, 0, -1, {}, 1e6, 1e-6f, 32768, true},
        {"mini", Family::Sdar, 256, 6, 8, 4, 32, 768, 0, -1, {}, 1e6, 1e-6f, 32768, true},
        {"small", Family::Sdar, 768, 12, 12, 4, 64, 2304, 0, -1, {}, 1e6, 1e-6f, 32768, true},
        {"sdar-1.7b", Family::Sdar, 2048, 28, 16, 8, 128, 6144, 151936, 151669, qwen3_stops, 1e6, 1e-6f,
         32768, false},
        {"sdar-4b", Family::Sdar, 2560, 36, 32, 8, 128, 9728, 151936, 151669, qwen3_stops, 1e6, 1e-6f, 32768,
         false},
        {"sdar-8b", Family::Sdar, 4096, 36, 32, 8, 128, 12288, 151936, 151669, qwen3_stops, 1e6, 1e-6f, 32768,
         false},
        {"dream-7b",
         Family::Dream,
         3584,
         28,
         28,
         4,
         128,
         18944,
         152064,
         151666,
         {151643},
         1e6,
         1e-6f,
         131072,
         false},
        {"llada-8b",
         Family::Llada,
         4096,
         32,
         32,
         32,
         128,
         12288,
         126464,
         126336,
         {126081},
         5e5,
         1e-5f,
         4096,
         false},
    };
    return table;
}
}  // namespace

const std::vector<std::string>& model_presets() {
    static const std::vector<std::string> names = [] {
        std::vector<std::string> names;
        for (const Preset& p : presets()) names.push_back(p.name);
        return names;
    }();
    return names;
}

ModelConfig model_preset(const std::string& name) {
    for (const Preset& p : presets()) {
        if (name != p.name) continue;
        ModelConfig c;
        c.family = p.family;
        c.V = p.V, c.C = p.C, c.L = p.L, c.NH = p.NH, c.NKV = p.NKV, c.HD = p.HD, c.F = p.F;
        c.full_attention = p.family != Family::Sdar;
        c.B = c.full_attention ? 32 : 4;
        c.qk_norm = p.family == Family::Sdar;
        c.qkv_bias = c.shift = p.family == Family::Dream;
        c.mask_id = p.mask_id;
        c.eos_ids = p.eos_ids;
        c.rope_theta = p.rope_theta;
        c.rms_eps = p.rms_eps;
        c.max_positions = p.max_positions;
        c.tied = p.tied;
        return c;
    }
    std::string known;
    for (const std::string& n : model_presets()) known += (known.empty() ? "" : ", ") + n;
    fail(Exit::Usage, "unknown preset %s: it must be one of %s", name.c_str(), known.c_str());
}
