// infer.cpp -- the `infer` program: a model folder and prompts in, text or trajectories out.
#include "inference/engine.h"
#include "inference/infer_output.h"
#include "inference/infer_plan.h"
#include "inference/logits.h"
#include "tokenizer/encode_file.h"
#include "utils/log.h"
#include "utils/progress.h"
#include "utils/signals.h"
#include "utils/timer.h"
#include "weights_tools/model_folder.h"

namespace {

// Weights on the device; planned first, so that nothing is read where they do not fit.
struct Model {
    ModelFolder folder;
    Arena arena;
    Parameters weights;
    Model(const std::string& path, Ops& ops, DType dtype)
        : folder(open_model_folder(path, Head::Policy)), arena("weights", ops) {
        weights.plan(arena, folder.config, Head::Policy, dtype);
    }
    void load(Ops& ops) {
        arena.allocate();
        weights.bind(folder.config);
        load_weights(folder, weights, ops);
    }
    const ModelConfig& config() const { return folder.config; }
};

void check_cache(Cache cache, const ModelConfig& config) {
    if (cache == Cache::Exact && config.full_attention)
        fail(Exit::Usage,
             "--cache exact: under full attention every key depends on every token; use --cache none");
    if (cache == Cache::None && !config.full_attention)
        fail(Exit::Usage, "--cache none: is for full-attention models; a block model's cache is exact");
}

std::vector<Request> requests_of(const std::vector<Prompt>& prompts, const GenerateOptions& options,
                                 int samples, std::vector<Asked>& asked) {
    std::vector<Request> out;
    for (const Prompt& p : prompts)
        for (int s = 0; s < samples; s++) {
            asked.push_back({&p, s});
            out.push_back({p.ids, uint32_t(out.size()), options});
        }
    return out;
}

Exit infer(const InferOptions& o, const Common& common, const Options& flags) {
    if (!o.encode.empty()) {
        const auto tokenizer = load_tokenizer(o.tokenizer.empty() ? o.model : o.tokenizer);
        encode_jsonl(o.encode, *tokenizer, choose_chat_template(o.chat_template, "", *tokenizer), stdout);
        return Exit::Ok;
    }
    Timer timer;
    const std::string path = o.model.empty() ? default_model_folder() : o.model;
    const std::unique_ptr<Ops> ops = make_cpu_ops();
    Model model(path, *ops, common.dtype == "bf16" ? DType::BF16 : DType::F32);
    const ModelConfig& config = model.config();
    check_cache(o.cache, config);
    const TextModel text = load_text_model(o.tokenizer, o.chat_template, path, config);
    const GenerateOptions options = o.decoding.resolve(flags, config, text.eos_ids, common.seed);
    const std::vector<Prompt> prompts = read_prompts(o, text, path);
    if (!o.logits.empty()) {
        model.load(*ops);
        write_logits(o.logits, prompts[0].ids, options.block, *ops, config, model.weights);
        return Exit::Ok;
    }
    std::vector<Asked> asked;
    const std::vector<Request> requests = requests_of(prompts, options, o.num_samples, asked);
    const EngineLimits limits = plan_limits(requests, config, o.max_active, o.max_rows, o.kv_slots);
    Arena arena("engine", *ops);
    Engine engine(*ops, config, model.weights, limits, text.n_ids, arena);
    const Arena* arenas[] = {&model.arena, &arena};
    if (common.dry_run) {
        if (common.json)
            printf("%s\n", dump(plan_json(arenas, limits)).c_str());
        else
            print_plan(stdout, arenas, limits, !common.quiet);
    }
    check_memory(arenas);
    if (common.dry_run) return Exit::Ok;
    model.load(*ops);
    arena.allocate();
    const double load_s = timer.restart();

    AnswerPrinter printer(stdout, asked, text, common.json, load_s);
    std::optional<ProgressBar> progress;
    if (requests.size() > 1)
        progress.emplace("answers", int64_t(requests.size()), progress_style(common.progress));
    Callbacks callbacks;
    callbacks.should_stop = interrupted;
    callbacks.on_reveal = [&](int, const PartialResponse& so_far) { printer.reveal(so_far, options); };
    callbacks.on_finish = [&](int request, const Trajectory& t) {
        printer.finish(request, t);
        if (progress) progress->update(printer.n_finished());
    };
    const std::vector<Trajectory> done = engine.generate(requests, callbacks);
    if (progress) progress->finish();
    log_info("%s", summary(done, engine.forward_passes(), timer.seconds()).c_str());
    return interrupt_code();
}

}  // namespace

int main(int argc, char** argv) {
    Common common;
    InferOptions options;
    return run_main(
        argc, argv,
        "Generates text with diffusion language models (SDAR, TraDo, Dream, LLaDA) and their autoregressive "
        "parents.",
        common, [&](Options& flags) { options.declare(flags, common); },
        [&](const Options& flags) { return infer(options, common, flags); });
}
