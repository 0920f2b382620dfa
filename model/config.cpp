#include "model/config.h"

#include <cmath>
#include <set>

#include "utils/error.h"
#include "utils/json.h"

namespace {

// What a family's config.json calls things, and what its class assumes where the file is silent.
struct FieldNames {
    const char *V, *C, *L, *NH, *NKV, *F, *eps, *positions, *tied;
};
constexpr FieldNames QWEN_FIELDS = {
    "vocab_size",          "hidden_size",       "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "intermediate_size", "rms_norm_eps",      "max_position_embeddings",
    "tie_word_embeddings"};
constexpr FieldNames LLADA_FIELDS = {"vocab_size",  "d_model",         "n_layers",     "n_heads",
                                     "n_kv_heads",  "mlp_hidden_size", "rms_norm_eps", "max_sequence_length",
                                     "weight_tying"};

// Sizes beyond these are nonsense in any model of this decade; within them no product of sizes overflows.
constexpr int MAX_VOCABULARY = 1 << 24, MAX_WIDTH = 1 << 17, MAX_MLP = 1 << 20, MAX_LAYERS = 1 << 10,
              MAX_HEADS = 1 << 10, MAX_HEAD_SIZE = 1 << 10, MAX_POSITIONS = 1 << 24, MAX_BLOCK = 1 << 12;

constexpr int SDAR_BLOCK = 4;             // the released chat models'
constexpr int FULL_ATTENTION_BLOCK = 32;  // dLLM-RL's decoding block for LLaDA and Dream
constexpr int SDAR_MASK_ID = 151669, DREAM_MASK_ID = 151666, LLADA_MASK_ID = 126336;

// A field with one supported meaning: any other value would change what the network computes.
struct Fixed {
    const char* field;
    std::vector<Json> allowed;  // null stands for "may be missing" as well
    const char* why;            // what is not supported
};

const std::vector<Fixed>& fixed_qwen() {
    static const std::vector<Fixed> table = {
        {"hidden_act", {"silu", "swish", nullptr}, "the MLP is SwiGLU"},
        {"use_sliding_window", {false, nullptr}, "sliding windows are not supported"},
        {"use_mrope", {false, nullptr}, "multimodal rotary positions are not supported"},
        {"mlp_bias", {false, nullptr}, "biases in the MLP are not supported"},
        {"num_experts", {0, nullptr}, "mixture of experts is not supported"},
        {"num_local_experts", {0, nullptr}, "mixture of experts is not supported"},
        {"n_routed_experts", {0, nullptr}, "mixture of experts is not supported"},
        {"partial_rotary_factor", {1, 1.0, nullptr}, "rotary positions cover the whole head"},
        {"final_logit_softcapping", {nullptr}, "soft-capped logits are not supported"},
        {"attn_logit_softcapping", {nullptr}, "soft-capped attention is not supported"},
        {"logit_scale", {1, 1.0, nullptr}, "scaled logits are not supported"},
        {"quantization_config", {nullptr}, "quantised weights are not supported"},
    };
    return table;
}

const std::vector<Fixed>& fixed_llada() {
    static const std::vector<Fixed> table = {
        {"block_type", {"llama"}, "only the llama block is supported"},
        {"layer_norm_type", {"rms"}, "only RMSNorm is supported"},
        {"activation_type", {"silu"}, "the MLP is SwiGLU, which this family calls silu"},
        {"rope", {true}, "positions are rotary"},
        {"rope_full_precision", {true, nullptr}, "rotary positions are computed in fp32"},
        {"rope_scaling", {nullptr}, "scaled rotary positions are not supported"},
        {"multi_query_attention", {nullptr, false}, "give the number of key and value heads in n_kv_heads"},
        {"include_bias", {false, nullptr}, "biases are not supported in this family"},
        {"include_qkv_bias", {false, nullptr}, "biases are not supported in this family"},
        {"bias_for_layer_norm", {false, nullptr}, "biases are not supported in this family"},
        {"layer_norm_with_affine", {true, nullptr}, "norms have a weight"},
        {"attention_layer_norm", {false, nullptr}, "q/k norms are not supported in this family"},
        {"input_emb_norm", {false, nullptr}, "scaled embeddings are not supported"},
        {"scale_logits", {false, nullptr}, "scaled logits are not supported"},
        {"alibi", {false, nullptr}, "ALiBi is not supported"},
        {"block_group_size", {1, nullptr}, "grouped blocks are not supported"},
        {"quantization_config", {nullptr}, "quantised weights are not supported"},
    };
    return table;
}

// A value for a message: short whatever is in the file.
std::string show(const Json& value) {
    std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
    if (text.size() > 80) text = text.substr(0, 77) + "...";
    return text;
}

// Reads fields, remembers which, and collects what is wrong with them.
class Reader {
  public:
    explicit Reader(const Json& json) : json_(json) {}

    void fault(std::string text) { faults_.push_back(std::move(text)); }
    const Json* find(const char* field) {  // null counts as absent
        known_.insert(field);
        const auto it = json_.find(field);
        return it == json_.end() || it->is_null() ? nullptr : &*it;
    }

    int integer(const char* field, int low, int high) {
        const Json* value = find(field);
        if (value) return whole(*value, field, low, high);
        fault(format("%s is missing", field));
        return low;
    }
    int integer_or(const char* field, int low, int high, int fallback) {
        const Json* value = find(field);
        return value ? whole(*value, field, low, high) : fallback;
    }
    // A number that `value` holds, found under `field`; where there is none, what the family's class assumes.
    double positive(const char* field, const Json* value, double fallback,
                    std::vector<std::string>& notices) {
        if (!value) {
            notices.push_back(format("%s is missing, %g is assumed", field, fallback));
            return fallback;
        }
        const double x = value->is_number() ? value->get<double>() : NAN;
        if (x > 1e-30 && x < 1e30) return x;  // what fp32 holds, too
        fault(format("%s is %s, must be a positive number that fp32 holds", field, show(*value).c_str()));
        return fallback;
    }
    bool boolean(const char* field, bool required) {
        const Json* value = find(field);
        if (value && value->is_boolean()) return value->get<bool>();
        if (value) fault(format("%s is %s, must be true or false", field, show(*value).c_str()));
        if (!value && required) fault(format("%s is missing, must be true or false", field));
        return false;
    }
    std::vector<int> ids(const char* field, int V) {
        const Json* value = find(field);
        std::vector<int> ids;
        if (!value) return ids;
        if (!value->is_array()) return {whole(*value, field, 0, V - 1)};
        for (const Json& id : *value) ids.push_back(whole(id, field, 0, V - 1));
        return ids;
    }
    void check(const Fixed& fixed) {
        known_.insert(fixed.field);
        const auto it = json_.find(fixed.field);
        std::string wanted;
        for (const Json& allowed : fixed.allowed) {
            if (it == json_.end() ? allowed.is_null() : *it == allowed) return;
            wanted += (wanted.empty() ? "" : " or ") + show(allowed);
        }
        const std::string is = it == json_.end() ? "is missing" : "is " + show(*it);
        fault(format("%s %s, must be %s: %s", fixed.field, is.c_str(), wanted.c_str(), fixed.why));
    }
    void known(const char* field) { known_.insert(field); }

    std::vector<std::string> unread() const {
        std::vector<std::string> fields;
        for (const auto& [field, value] : json_.items())
            if (!known_.count(field)) fields.push_back(field);
        return fields;
    }
    const std::vector<std::string>& faults() const { return faults_; }

  private:
    int whole(const Json& value, const char* field, int low, int high) {
        const bool fits =
            value.is_number_unsigned() ? value.get<uint64_t>() <= uint64_t(high) : value.is_number_integer();
        if (fits && value.get<int64_t>() >= low && value.get<int64_t>() <= high) return value.get<int>();
        fault(
            format("%s is %s, must be a whole number from %d to %d", field, show(value).c_str(), low, high));
        return low;
    }

    const Json& json_;
    std::set<std::string> known_;
    std::vector<std::string> faults_;
};

[[noreturn]] void refuse(const std::string& where, const std::vector<std::string>& faults) {
    if (faults.size() == 1) fail(Exit::BadFile, "%s: %s", where.c_str(), faults[0].c_str());
    std::string text = format("%s: %zu faults:", where.c_str(), faults.size());
    for (const std::string& f : faults) text += "\n  " + f;
    throw Error(Exit::BadFile, text);
}

// The family by model_type; where that is missing, by the class in `architectures`.
Family parse_family(const Json& json, const std::string& where) {
    const auto type = json.find("model_type");
    std::string name;
    if (type != json.end() && type->is_string()) {
        name = type->get<std::string>();
    } else if (type == json.end() || type->is_null()) {
        const auto classes = json.find("architectures");
        if (classes != json.end() && classes->is_array() && !classes->empty() && (*classes)[0].is_string())
            name = (*classes)[0].get<std::string>();
        else
            refuse(where, {"model_type is missing: it must be sdar, Dream, llada, qwen3 or qwen2"});
    } else {
        refuse(where, {"model_type is " + show(*type) + ", must be sdar, Dream, llada, qwen3 or qwen2"});
    }
    if (name == "sdar" || name == "SDARForCausalLM") return Family::Sdar;
    if (name == "Dream" || name == "dream" || name == "DreamModel") return Family::Dream;
    if (name == "llada" || name == "LLaDAModelLM") return Family::Llada;
    if (name == "qwen3" || name == "Qwen3ForCausalLM") return Family::Qwen3;
    if (name == "qwen2" || name == "Qwen2ForCausalLM") return Family::Qwen2;
    const std::string shown = show(Json(name));
    if (name.find("moe") != std::string::npos || name.find("Moe") != std::string::npos)
        refuse(where, {"model_type is " + shown +
                       ": mixture of experts is not supported; use a dense model, "
                       "e.g. SDAR-1.7B, 4B or 8B"});
    refuse(where, {"model_type is " + shown +
                   ", which is not supported: it must be sdar, Dream, llada, qwen3 or qwen2"});
}

void read_sizes(Reader& read, const FieldNames& names, ModelConfig& c) {
    c.V = read.integer(names.V, 1, MAX_VOCABULARY);
    if (!read.faults().empty()) c.V = MAX_VOCABULARY;  // no id is to blame for it
    c.C = read.integer(names.C, 1, MAX_WIDTH);
    c.L = read.integer(names.L, 1, MAX_LAYERS);
    c.NH = read.integer(names.NH, 1, MAX_HEADS);
    c.NKV = read.integer_or(names.NKV, 1, MAX_HEADS, c.NH);
    if (read.faults().empty() && c.NH % c.NKV)
        read.fault(format("%s %d is not a multiple of %s %d", names.NH, c.NH, names.NKV, c.NKV));
    c.max_positions = read.integer_or(names.positions, 1, MAX_POSITIONS, c.max_positions);
    c.tied = read.boolean(names.tied, c.family == Family::Llada);
}

void read_head_size(Reader& read, const FieldNames& names, ModelConfig& c) {
    if (c.family != Family::Llada) c.HD = read.integer_or("head_dim", 1, MAX_HEAD_SIZE, 0);
    if (c.HD == 0 && read.faults().empty()) {
        if (c.C % c.NH)
            return read.fault(format("%s %d is not a multiple of %s %d, and there is no head_dim", names.C,
                                     c.C, names.NH, c.NH));
        c.HD = c.C / c.NH;
        if (c.HD > MAX_HEAD_SIZE)
            return read.fault(format("%s / %s gives a head size of %d, at most %d is supported", names.C,
                                     names.NH, c.HD, MAX_HEAD_SIZE));
    }
    if (c.HD % 2) read.fault(format("head size %d is odd: rotary positions need pairs", c.HD));
}

// transformers 5 writes rope_parameters {"rope_type": "default", "rope_theta": x} where 4 wrote rope_theta.
void read_rope(Reader& read, ModelConfig& c) {
    const Json* theta = read.find("rope_theta");
    for (const char* field : {"rope_scaling", "rope_parameters"}) {
        const Json* value = read.find(field);
        if (!value) continue;
        bool plain = value->is_object();
        if (plain)
            for (const auto& [key, setting] : value->items()) {
                if (key == "rope_theta" && !theta)
                    theta = &setting;
                else if (key != "rope_theta")
                    plain = plain && (key == "type" || key == "rope_type") && setting == "default";
            }
        if (!plain)
            read.fault(format("%s is %s, must be null: scaled rotary positions are not supported", field,
                              show(*value).c_str()));
    }
    c.rope_theta = read.positive("rope_theta", theta, 1e4, c.notices);
}

void read_qwen(Reader& read, ModelConfig& c) {
    read_sizes(read, QWEN_FIELDS, c);
    read_head_size(read, QWEN_FIELDS, c);
    c.F = read.integer("intermediate_size", 1, MAX_MLP);
    c.rms_eps = float(read.positive("rms_norm_eps", read.find("rms_norm_eps"), 1e-6, c.notices));
    read_rope(read, c);
    const bool sdar_or_qwen3 = c.family == Family::Sdar || c.family == Family::Qwen3;
    c.qk_norm = sdar_or_qwen3;
    c.qkv_bias = !sdar_or_qwen3;
    for (const Fixed& fixed : fixed_qwen()) read.check(fixed);
    if (sdar_or_qwen3)
        read.check(
            {"attention_bias", {false, nullptr}, "biases in attention are not supported in this family"});
    if (const Json* types = read.find("layer_types"))
        for (const Json& type : *types)
            if (type != "full_attention") {
                read.fault("layer_types has " + show(type) +
                           ", must be \"full_attention\": sliding windows are not "
                           "supported");
                break;
            }
}

void read_llada(Reader& read, ModelConfig& c) {
    read_sizes(read, LLADA_FIELDS, c);
    read_head_size(read, LLADA_FIELDS, c);
    const int rows = read.integer_or("embedding_size", 1, MAX_VOCABULARY, c.V);
    if (rows < c.V) read.fault(format("embedding_size %d is smaller than vocab_size %d", rows, c.V));
    c.V = rows;
    const int ratio = read.integer_or("mlp_ratio", 1, MAX_MLP / c.C + 1, 4);
    c.F = read.integer_or("mlp_hidden_size", 1, MAX_MLP, ratio * c.C);
    c.rms_eps = float(read.positive("rms_norm_eps", read.find("rms_norm_eps"), 1e-5, c.notices));
    c.rope_theta = read.positive("rope_theta", read.find("rope_theta"), 1e4, c.notices);
    c.qk_norm = c.qkv_bias = false;
    for (const Fixed& fixed : fixed_llada()) read.check(fixed);
}

// Block length, mask id, and the two facts about attention that no file states.
void read_diffusion(Reader& read, ModelConfig& c) {
    c.full_attention = c.family == Family::Dream || c.family == Family::Llada;
    const bool autoregressive = c.family == Family::Qwen3 || c.family == Family::Qwen2;
    c.shift = c.family == Family::Dream || autoregressive;
    c.B = 1;
    c.mask_id = -1;
    if (autoregressive) return;

    c.B = read.integer_or("block_size", 1, MAX_BLOCK, 0);
    if (c.B == 0) {
        c.B = c.full_attention ? FULL_ATTENTION_BLOCK : SDAR_BLOCK;
        if (c.family == Family::Sdar)
            c.notices.push_back(format("block_size is missing, the released models' %d is assumed", c.B));
    }
    c.mask_id = read.integer_or("mask_token_id", 0, c.V - 1, -1);
    if (c.mask_id >= 0) return;
    const int usual = c.family == Family::Sdar    ? SDAR_MASK_ID
                      : c.family == Family::Dream ? DREAM_MASK_ID
                                                  : LLADA_MASK_ID;
    if (usual >= c.V)
        return read.fault(format(
            "mask_token_id is missing, and this family's usual %d is past the vocabulary of %d", usual, c.V));
    c.mask_id = usual;
    c.notices.push_back(format("mask_token_id is missing, the released models' %d is assumed", usual));
}

}  // namespace

const char* name_of(Family family) {
    switch (family) {
        case Family::Sdar: return "sdar";
        case Family::Dream: return "Dream";
        case Family::Llada: return "llada";
        case Family::Qwen3: return "qwen3";
        case Family::Qwen2: return "qwen2";
    }
    return "?";
}

// transformers' class with a language-modelling head.
static const char* class_of(Family family) {
    switch (family) {
        case Family::Sdar: return "SDARForCausalLM";
        case Family::Dream: return "DreamModel";
        case Family::Llada: return "LLaDAModelLM";
        case Family::Qwen3: return "Qwen3ForCausalLM";
        case Family::Qwen2: return "Qwen2ForCausalLM";
    }
    return "?";
}

int64_t ModelConfig::n_parameters() const {
    const int64_t q = q_width(), kv = kv_width();
    int64_t layer = 2 * int64_t(C) + (q + 2 * kv) * C + int64_t(C) * q + 3 * int64_t(F) * C;
    if (qkv_bias) layer += q + 2 * kv;
    if (qk_norm) layer += 2 * HD;
    return (tied ? 1 : 2) * int64_t(V) * C + L * layer + C;
}

ModelConfig parse_config(const Json& json, const std::string& where) {
    if (!json.is_object()) refuse(where, {"it must be a JSON object, but is " + show(json)});
    ModelConfig c;
    c.family = parse_family(json, where);
    c.raw = std::make_shared<const Json>(json);
    Reader read(json);
    read.known("model_type");
    if (c.family == Family::Llada)
        read_llada(read, c);
    else
        read_qwen(read, c);
    read_diffusion(read, c);
    c.eos_ids = read.ids("eos_token_id", c.V);
    if (const Json* dropout = read.find("attention_dropout"))
        if (*dropout != 0)
            c.notices.push_back("attention_dropout is " + show(*dropout) + ": nothing is dropped out here");
    if (!read.faults().empty()) refuse(where, read.faults());
    c.ignored = read.unread();
    return c;
}

// 1e-6f as 1e-6, not as the double nearest to the float.
static double shortest(float x) { return std::stod(format("%.7g", double(x))); }

static Json qwen_json(const ModelConfig& c) {
    Json j;
    j["hidden_size"] = c.C;
    j["intermediate_size"] = c.F;
    j["num_hidden_layers"] = c.L;
    j["num_attention_heads"] = c.NH;
    j["num_key_value_heads"] = c.NKV;
    if (c.qk_norm || c.HD * c.NH != c.C) j["head_dim"] = c.HD;
    if (c.qk_norm) j["attention_bias"] = false;
    j["attention_dropout"] = 0.0;
    j["hidden_act"] = "silu";
    j["max_position_embeddings"] = c.max_positions;
    j["max_window_layers"] = c.L;
    j["rms_norm_eps"] = shortest(c.rms_eps);
    j["rope_scaling"] = nullptr;
    j["rope_theta"] = c.rope_theta;
    j["sliding_window"] = nullptr;
    j["use_sliding_window"] = false;
    j["tie_word_embeddings"] = c.tied;
    return j;
}

static Json llada_json(const ModelConfig& c) {
    Json j;
    j["d_model"] = c.C;
    j["mlp_hidden_size"] = c.F;
    j["mlp_ratio"] = 4;  // the published value; mlp_hidden_size is what counts
    j["n_layers"] = c.L;
    j["n_heads"] = c.NH;
    j["n_kv_heads"] = c.NKV;
    j["activation_type"] = "silu";
    j["alibi"] = false;
    j["attention_dropout"] = 0.0;
    j["attention_layer_norm"] = false;
    j["bias_for_layer_norm"] = false;
    j["block_group_size"] = 1;
    j["block_type"] = "llama";
    j["embedding_dropout"] = 0.0;
    j["embedding_size"] = c.V;
    j["flash_attention"] = false;
    j["include_bias"] = false;
    j["include_qkv_bias"] = false;
    j["init_device"] = "meta";
    j["input_emb_norm"] = false;
    j["layer_norm_type"] = "rms";
    j["layer_norm_with_affine"] = true;
    j["max_sequence_length"] = c.max_positions;
    j["multi_query_attention"] = nullptr;
    j["residual_dropout"] = 0.0;
    j["rms_norm_eps"] = shortest(c.rms_eps);
    j["rope"] = true;
    j["rope_full_precision"] = true;
    j["rope_theta"] = c.rope_theta;
    j["scale_logits"] = false;
    j["weight_tying"] = c.tied;
    return j;
}

// SDAR's, Dream's and LLaDA's classes are files that travel with the model; auto_map is how they are found.
static Json auto_map(Family family) {
    if (family == Family::Sdar)
        return {{"AutoConfig", "configuration_sdar.SDARConfig"},
                {"AutoModel", "modeling_sdar.SDARModel"},
                {"AutoModelForCausalLM", "modeling_sdar.SDARForCausalLM"}};
    if (family == Family::Dream)
        return {{"AutoConfig", "configuration_dream.DreamConfig"},
                {"AutoModel", "modeling_dream.DreamModel"}};
    if (family == Family::Llada)
        return {{"AutoConfig", "configuration_llada.LLaDAConfig"},
                {"AutoModel", "modeling_llada.LLaDAModelLM"},
                {"AutoModelForCausalLM", "modeling_llada.LLaDAModelLM"}};
    return nullptr;
}

Json config_to_json(const ModelConfig& c) {
    Json j;
    j["architectures"] = Json::array({class_of(c.family)});
    if (const Json map = auto_map(c.family); !map.is_null()) j["auto_map"] = map;
    j["model_type"] = name_of(c.family);
    j["vocab_size"] = c.V;
    j.update(c.family == Family::Llada ? llada_json(c) : qwen_json(c));
    j["initializer_range"] = 0.02;
    j["use_cache"] = false;
    if (c.family == Family::Sdar) j["block_size"] = c.B;
    if (c.mask_id >= 0) j["mask_token_id"] = c.mask_id;
    if (!c.eos_ids.empty()) {
        // The configuration classes want one id, the end of a text; generation_config.json takes all of them,
        // the end of a turn first.
        j["bos_token_id"] = j["eos_token_id"] = j["pad_token_id"] = c.eos_ids.back();
    }
    return j;
}
