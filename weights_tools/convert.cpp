// convert.cpp -- the program that looks after model folders: checks, makes, casts, exports and compares them.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <optional>

#include "tokenizer/byte_tokenizer.h"
#include "tokenizer/tokenizer.h"
#include "utils/cli.h"
#include "utils/files.h"
#include "utils/json.h"
#include "utils/log.h"
#include "utils/progress.h"
#include "utils/timer.h"
#include "weights_tools/init_folder.h"
#include "weights_tools/inspect.h"
#include "weights_tools/presets.h"
#include "weights_tools/rewrite_folder.h"

namespace {
struct Arguments {
    Common common;
    std::string dir, other, out, preset, tokenizer, base;
    std::vector<std::string> set;
    double tolerance = 0;
    bool force = false, scan = true;

    DType dtype() const { return common.dtype == "bf16" ? DType::BF16 : DType::F32; }
};

std::string size_text(uint64_t bytes) {
    constexpr double MIB = 1 << 20, GIB = 1 << 30;
    return double(bytes) < GIB ? format("%.1f MiB", double(bytes) / MIB)
                               : format("%.2f GiB", double(bytes) / GIB);
}

std::string join(const std::vector<std::string>& words) {
    std::string text;
    for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
    return text;
}

// A bar over bytes, fed from functions that know nothing of it.
class ByteBar {
  public:
    ByteBar(const char* label, uint64_t bytes, const Common& common)
        : bar_(std::string(label) + ", MiB", int64_t(bytes >> 20), progress_style(common.progress)) {}
    std::function<void(uint64_t)> function() {
        return [this](uint64_t done) { bar_.update(int64_t(done >> 20)); };
    }
    void finish() { bar_.finish(); }

  private:
    ProgressBar bar_;  // in MiB
};

int64_t n_parameters(const ModelFolder& folder) {
    int64_t sum = 0;
    for (const FileTensor* t : folder.weights.tensors()) sum += t->size();
    return sum;
}

Json description(const ModelFolder& folder) {
    const ModelConfig& c = folder.config;
    return {{"model", folder.path},
            {"family", name_of(c.family)},
            {"value_model", folder.is_value},
            {"parameters", n_parameters(folder)},
            {"layers", c.L},
            {"width", c.C},
            {"vocabulary", c.V},
            {"block", c.B},
            {"mask_id", c.mask_id},
            {"stop_ids", c.eos_ids},
            {"dtype", name_of(folder.dtype)},
            {"tensors", folder.weights.tensors().size()},
            {"files", folder.weights.n_files()},
            {"bytes", folder.weights.bytes()},
            {"tokenizer", has_tokenizer(folder.path)},
            {"ignored", c.ignored},
            {"notices", folder.notices}};
}

void print_description(const ModelFolder& folder) {
    const ModelConfig& c = folder.config;
    std::string stops;
    for (const int id : c.eos_ids) stops += " " + std::to_string(id);
    printf("model      %s%s, %.1f M parameters, %d layers, width %d, vocabulary %d\n", name_of(c.family),
           folder.is_value ? " value model" : "", double(n_parameters(folder)) / 1e6, c.L, c.C, c.V);
    printf("decoding   %s, block %d, mask id %d, stop ids%s\n",
           c.full_attention ? "full attention"
           : c.mask_id < 0  ? "autoregressive"
                            : "block diffusion",
           c.B, c.mask_id, stops.empty() ? " none" : stops.c_str());
    printf("weights    %zu tensors in %zu file%s, %s, %s\n", folder.weights.tensors().size(),
           folder.weights.n_files(), folder.weights.n_files() == 1 ? "" : "s", name_of(folder.dtype),
           size_text(folder.weights.bytes()).c_str());
    printf("tokenizer  %s\n", has_tokenizer(folder.path) ? "in the folder" : "none in the folder");
    printf("ignored    %s\n", c.ignored.empty() ? "no fields" : join(c.ignored).c_str());
    for (const std::string& notice : folder.notices) printf("notice     %s\n", notice.c_str());
}

// Where the folder has one: that it can be read, and is this model's.
void check_tokenizer(const ModelFolder& folder) {
    if (!has_tokenizer(folder.path)) return;
    const int ids = load_tokenizer(folder.path)->vocabulary_size();
    if (ids > folder.config.V)
        fail(Exit::BadFile,
             "%s: its tokenizer has %d ids, vocabulary_size is %d: it is not this model's tokenizer",
             folder.path.c_str(), ids, folder.config.V);
}

Exit check(const Arguments& a) {
    const ModelFolder folder = open_model_folder(resolve_model_path(a.dir));
    Json report = description(folder);
    if (!a.common.json) print_description(folder);
    check_tokenizer(folder);
    std::vector<NonFinite> bad;
    if (a.scan) {
        ByteBar bar("scanning", folder.weights.bytes(), a.common);
        bad = find_non_finite(folder.weights, bar.function());
        bar.finish();
    }
    report["non_finite"] = Json::array();
    std::string text =
        format("%s: %zu tensors have numbers that are not finite:", folder.path.c_str(), bad.size());
    for (const NonFinite& n : bad) {
        report["non_finite"].push_back({{"tensor", n.name}, {"nan", n.nan}, {"infinite", n.infinite}});
        text += format("\n  %s: %lld NaN, %lld infinite", n.name.c_str(), (long long)n.nan,
                       (long long)n.infinite);
    }
    report["sound"] = bad.empty();
    if (a.common.json) printf("%s\n", dump(report).c_str());
    if (!bad.empty()) throw Error(Exit::BadFile, text);
    if (!a.common.json) printf("sound%s\n", a.scan ? ", every number finite" : "");
    return Exit::Ok;
}

// ---- making folders

// Runs `fill` on a folder that appears as --out when it is complete.
Exit make_folder(const Arguments& a, uint64_t bytes,
                 const std::function<void(const std::string&, ByteBar&)>& fill) {
    if (a.common.dry_run) {
        if (a.common.json)
            printf("%s\n", dump({{"model", a.out}, {"bytes", bytes}}).c_str());
        else
            printf("%s: %s of weights\n", a.out.c_str(), size_text(bytes).c_str());
        return Exit::Ok;
    }
    Timer timer;
    AtomicFolder out(a.out, a.force);
    std::error_code error;
    const std::filesystem::space_info space = std::filesystem::space(out.path(), error);
    if (!error && space.available < bytes)
        fail(Exit::Runtime, "%s: needs %s, %s are free there", a.out.c_str(), size_text(bytes).c_str(),
             size_text(space.available).c_str());
    ByteBar bar("writing weights", bytes, a.common);
    fill(out.path(), bar);
    out.commit();
    bar.finish();
    const ModelFolder folder = open_model_folder(a.out);
    if (a.common.json)
        printf("%s\n", dump(description(folder)).c_str());
    else
        printf("%s: %s, %.1f M parameters, %s, %s in %.1f s\n", a.out.c_str(), name_of(folder.config.family),
               double(n_parameters(folder)) / 1e6, name_of(folder.dtype),
               size_text(folder.weights.bytes()).c_str(), timer.seconds());
    return Exit::Ok;
}

// What the folder's tokenizer, and its config.json where it has one, say about a model's vocabulary.
Vocabulary vocabulary_of(const std::string& folder) {
    if (file_exists(folder + "/config.json")) {
        const ModelConfig c = read_model_config(folder);
        if (c.mask_id >= 0) return {c.V, c.mask_id, c.eos_ids};
    }
    const std::unique_ptr<Tokenizer> tokenizer = load_tokenizer(folder);
    Vocabulary v;
    for (const char* turn_end : {"<|im_end|>", "<|eot_id|>"})
        if (const int id = tokenizer->id_of(turn_end); id >= 0) v.eos_ids.push_back(id);
    if (tokenizer->eos() >= 0 &&
        std::find(v.eos_ids.begin(), v.eos_ids.end(), tokenizer->eos()) == v.eos_ids.end())
        v.eos_ids.push_back(tokenizer->eos());
    v.mask_id = tokenizer->mask();
    for (const char* mask : {"<|MASK|>", "<MASK>", "<|mask|>", "<|mdm_mask|>"})
        if (v.mask_id < 0) v.mask_id = tokenizer->id_of(mask);
    int ids = tokenizer->vocabulary_size();
    if (v.mask_id < 0) v.mask_id = ids++;  // an id without text will do
    v.rows = (ids + 7) / 8 * 8;
    return v;
}

Exit init(const Arguments& a) {
    const bool published = model_preset(a.preset).V > 0;
    const bool bytes = a.tokenizer == "bytes" || (a.tokenizer.empty() && !published);
    Vocabulary vocabulary;
    if (bytes) vocabulary = {BYTE_VOCABULARY, BYTE_MASK, {BYTE_IM_END, BYTE_END_OF_TEXT}};
    if (!bytes && !a.tokenizer.empty()) {
        const std::unique_ptr<Tokenizer> tokenizer = load_tokenizer(a.tokenizer);
        if (!published) vocabulary = vocabulary_of(a.tokenizer);
        const int rows = published ? model_preset(a.preset).V : vocabulary.rows;
        if (tokenizer->vocabulary_size() > rows)
            fail(Exit::Usage, "--tokenizer %s has %d ids, the model %d rows; use the tokenizer of that model",
                 a.tokenizer.c_str(), tokenizer->vocabulary_size(), rows);
    }
    const ModelConfig config = init_config(a.preset, vocabulary, a.set);
    return make_folder(a, weight_bytes(config, a.dtype()), [&](const std::string& path, ByteBar& bar) {
        if (bytes)
            save_byte_tokenizer(path);
        else if (!a.tokenizer.empty())
            copy_companions(a.tokenizer, path);
        init_folder(path, config, a.common.seed, a.dtype(), bar.function());
    });
}

Exit rewrite(const Arguments& a, Rewrite how) {
    how.companions = a.base;
    const ModelFolder from = open_model_folder(resolve_model_path(a.dir));
    if (how.to_value && from.is_value) fail(Exit::Usage, "%s is a value model already", from.path.c_str());
    return make_folder(a, rewritten_bytes(from, how), [&](const std::string& path, ByteBar& bar) {
        rewrite_folder(path, from, how, bar.function());
    });
}

// ---- comparing

Exit diff(const Arguments& a) {
    const WeightFiles left(resolve_model_path(a.dir)), right(resolve_model_path(a.other));
    ByteBar bar("comparing", left.bytes(), a.common);
    const std::vector<TensorDifference> all = compare(left, right, bar.function());
    bar.finish();
    size_t beyond = 0;
    double largest = 0;
    if (!a.common.json) printf("%12s %12s  tensor\n", "largest", "relative");
    for (const TensorDifference& d : all) {
        const bool bad = !d.mismatch.empty() || d.largest > a.tolerance;
        beyond += bad;
        largest = std::max(largest, d.largest);
        if (a.common.json && d.mismatch.empty())
            printf("%s\n",
                   dump({{"tensor", d.name}, {"largest", d.largest}, {"relative", d.relative}}).c_str());
        else if (a.common.json)
            printf("%s\n", dump({{"tensor", d.name}, {"mismatch", d.mismatch}}).c_str());
        else if (d.mismatch.empty())
            printf("%12.3e %12.3e  %s%s\n", d.largest, d.relative, d.name.c_str(), bad ? "  *" : "");
        else
            printf("%25s  %s: %s  *\n", "", d.name.c_str(), d.mismatch.c_str());
    }
    if (!a.common.json)
        printf("%zu tensors, %zu beyond %g, largest difference %.3e\n", all.size(), beyond, a.tolerance,
               largest);
    return beyond ? Exit::CheckFailed : Exit::Ok;
}

// ---- the command line

void add_out(Options& options, Arguments& a) {
    options.section("Output");
    options.add("--out DIR", &a.out, "the folder to make").required().not_in_config();
    options.add("--force", &a.force, "replace what is there");
    options.check([&a](Faults& faults) {
        std::error_code error;
        if (!a.out.empty() && file_exists(a.out) && !a.force && !std::filesystem::is_empty(a.out, error))
            faults.add("--out %s: is there already; --force replaces it", a.out.c_str());
    });
}

void declare(Options& options, Arguments& a) {
    Options& check =
        options.command("check", "Reads a model folder, checks everything, and says what is in it.");
    check.add("DIR", &a.dir, "a model folder, or a run's").required();
    check.add("--scan", &a.scan, "look for NaN and infinity in every tensor");

    Options& init = options.command("init", "Makes a model folder with random weights.");
    init.section("Model");
    init.add("--preset NAME", &a.preset, join(model_presets())).choices(model_presets()).required();
    init.add("--tokenizer DIR", &a.tokenizer,
             "a folder whose tokenizer files are copied, or bytes, the built-in one (the default of the "
             "small presets)");
    init.add("--set FIELD=VALUE", &a.set, "replace a field of config.json, e.g. num_hidden_layers=2");
    add_out(init, a);

    Options& cast = options.command("cast", "Writes a model folder in another type (--dtype).");
    cast.add("DIR", &a.dir, "a model folder, or a run's").required();
    add_out(cast, a);

    Options& exported =
        options.command("export", "Writes a checkpoint as a folder for Hugging Face's transformers.");
    exported.add("DIR", &a.dir, "a model folder, or a run's").required();
    exported.add("--base DIR", &a.base, "take tokenizer files and *.py from here, not from DIR");
    add_out(exported, a);

    Options& value =
        options.command("value-init", "Makes a value model of a policy: its body and a head of zeros.");
    value.add("DIR", &a.dir, "a model folder, or a run's").required();
    add_out(value, a);

    Options& diff =
        options.command("diff", "Compares two model folders or safetensors files, tensor by tensor.");
    diff.add("A", &a.dir, "a folder or file").required();
    diff.add("B", &a.other, "another").required();
    diff.add("--tolerance X", &a.tolerance, "exit 5 where a number differs by more").range(0, 1e30);

    options.epilog(
        "Examples:\n"
        "  convert init --preset tiny --out my_model\n"
        "  convert check my_model\n"
        "  convert cast my_model --dtype bf16 --out my_model_bf16\n"
        "  convert diff my_model my_model_bf16 --tolerance 1e-3\n"
        "Exit codes: 0 ok, 2 usage, 3 an unsound folder, 5 a difference beyond the tolerance.");
}
}  // namespace

int main(int argc, char** argv) {
    Arguments a;
    return run_main(
        argc, argv, "Looks after model folders.", a.common, [&](Options& options) { declare(options, a); },
        [&](const Options& options) {
            const std::string command = options.chosen();
            if (command == "check") return check(a);
            if (command == "init") return init(a);
            if (command == "cast") {
                if (a.common.dtype == "auto") fail(Exit::Usage, "cast needs --dtype fp32 or --dtype bf16");
                return rewrite(a, {a.dtype(), false, ""});
            }
            if (command == "export") return rewrite(a, {std::nullopt, false, ""});
            if (command == "value-init") return rewrite(a, {std::nullopt, true, ""});
            return diff(a);
        });
}
