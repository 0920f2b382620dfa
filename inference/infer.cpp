// infer.cpp -- the `infer` program: a model folder and prompts in, text or trajectories out.
#include <unistd.h>

#include <algorithm>

#include "inference/chat.h"
#include "inference/generation.h"
#include "inference/infer_output.h"
#include "inference/infer_plan.h"
#include "inference/logits.h"
#include "inference/planned_model.h"
#include "inference/trace_page.h"
#include "inference/visual.h"
#include "kernels/device_select.h"
#include "tokenizer/encode_file.h"
#include "utils/files.h"
#include "utils/json.h"
#include "utils/log.h"
#include "utils/progress.h"
#include "utils/signals.h"
#include "utils/timer.h"

namespace {

// What is settled before any work: files are read, options are resolved against the model.
struct Prepared {
    std::string path;  // of the model
    std::optional<ModelFolder> folder;
    TextModel text;
    GenerateOptions options;
    std::vector<Prompt> prompts;  // none with --chat
};

Exit encode(const InferOptions& o) {
    const auto tokenizer =
        load_tokenizer(o.text.tokenizer.empty() ? resolve_model_path(o.model) : o.text.tokenizer);
    encode_jsonl(o.encode, *tokenizer, choose_chat_template(o.text.chat_template, "", *tokenizer), stdout);
    return Exit::Ok;
}

void check_has_tokenizer(const TextModel& text) {
    if (!text.tokenizer)
        fail(Exit::Usage, "--chat: the model has no tokenizer; name one with --tokenizer DIR");
}

// Adds everything that is wrong; only what needs a part that is at fault is not looked at.
void prepare(Prepared& p, const InferOptions& o, const Common& common, const Options& flags, Faults& faults) {
    if (flags.given("--dump-config")) return;  // and nobody waits for standard input
    faults.attempt([&] { check_device(common.device); });
    for (const std::string& file : {o.logits, o.trace_html})
        if (!file.empty()) faults.attempt([&] { check_writable(file); });
    for (const std::string& file : {o.file, o.input, o.encode})
        if (!file.empty()) faults.attempt([&] { check_readable(file); });
    if (!o.encode.empty()) return;
    if (!faults.attempt([&] {
            p.path = o.model.empty() ? default_model_folder() : resolve_model_path(o.model);
            p.folder.emplace(open_model_folder(p.path, Head::Policy));
        }))
        return;
    const ModelConfig& config = p.folder->config;
    const bool has_text = faults.attempt(
        [&] { p.text = load_text_model(o.text.tokenizer, o.text.chat_template, p.path, config); });
    const bool has_options =
        faults.attempt([&] { p.options = o.decoding.resolve(config, p.text.eos_ids, common.seed); });
    if (has_text && o.chat) faults.attempt([&] { check_has_tokenizer(p.text); });
    // A file that is missing was named above.
    const bool has_file =
        (o.file.empty() || file_exists(o.file)) && (o.input.empty() || file_exists(o.input));
    if (!has_text || o.chat || !has_file) return;
    faults.attempt([&] {
        if (!has_options && !o.input.empty()) return;  // lines change single options
        p.prompts = read_prompts({o, flags, p.options, config, p.text, p.path});
        if (!o.logits.empty()) return check_logits(p.prompts[0].ids, config);
        if (!has_options) return;
        if (o.input.empty())
            check_prompt(p.prompts[0], false, [&] {
                check_request({p.prompts[0].ids, 0, p.options}, config);
            });
    });
}

// Everything that a run has, whatever it does with it.
struct Run {
    const InferOptions& o;
    const Common& common;
    const std::string& path;
    std::unique_ptr<Ops> ops;
    PlannedModel model;
    const TextModel& text;
    const std::vector<Prompt>& prompts;
    const GenerateOptions& options;
    Timer timer;

    Run(const InferOptions& o, const Common& common, Prepared& p)
        : o(o),
          common(common),
          path(p.path),
          ops(make_ops(common.device)),
          model(*p.folder, *ops, common.dtype),
          text(p.text),
          prompts(p.prompts),
          options(p.options) {}
    const ModelConfig& config() const { return model.config(); }

    // False with --dry-run, which prints the plan instead.
    bool ready(Arena& arena, const EngineLimits& limits) {
        return model.ready(arena, limits, common, !common.quiet);
    }

    Exit write_logits();
    Exit chat();
    Exit answer();
};

Exit Run::write_logits() {
    const std::vector<int>& ids = prompts[0].ids;
    const int T = int(ids.size());
    ::write_logits(o.logits, ids, options.block, *ops, config(), model.weights, [&](Arena& arena) {
        return ready(arena, {.max_active = 1, .max_rows = T, .kv_slots = T});
    });
    return Exit::Ok;
}

Exit Run::chat() {
    const Geometry geometry = geometry_of(config());
    const int canvases = options.cfg_scale > 0 ? 2 : 1;
    const int slots = o.kv_slots ? o.kv_slots : canvases * std::min(4096, config().max_positions);
    const int rows = geometry == Geometry::Canvas ? slots : std::max(512, 2 * options.block);
    const EngineLimits limits = {
        .max_active = 1, .max_rows = o.max_rows ? o.max_rows : rows, .kv_slots = slots, .keep_last = true};
    Arena arena("engine", *ops);
    Engine engine(*ops, config(), model.weights, limits, text.n_ids, arena);
    if (!ready(arena, limits)) return Exit::Ok;
    Chat chat(engine, text, config(), o.decoding, common.seed, o.system, o.text.thinking, stdout);
    chat.should_stop = [] { return take_interrupt() || interrupted(); };
    const bool terminal = isatty(STDIN_FILENO);
    if (terminal) log_info("%s; /help lists the commands, /bye ends", path.c_str());
    chat_loop(chat, stdin, terminal ? ">>> " : "");
    return interrupt_code();
}

Exit Run::answer() {
    std::vector<Asked> asked;
    std::vector<Request> requests;
    for (const Prompt& p : prompts)
        for (int s = 0; s < p.decoding.num_samples; s++) {
            asked.push_back({&p, s});
            requests.push_back(
                {p.ids, uint32_t(p.decoding.own_seed ? size_t(s) : requests.size()), p.decoding.options});
        }
    const size_t available = ops->available(), weights = model.arena.bytes();
    const EngineLimits limits =
        plan_limits(requests, config(), o.max_active, o.max_rows, o.kv_slots,
                    available - std::min(available, weights), activation_dtype(*ops, model.weights));
    Arena arena("engine", *ops);
    Engine engine(*ops, config(), model.weights, limits, text.n_ids, arena);
    LineFaults faults(o.input);
    for (size_t i = 0; i < requests.size(); i++)
        if (asked[i].sample == 0)
            faults.attempt([&] {
                check_prompt(*asked[i].prompt, !o.input.empty(), [&] { engine.check(requests[i]); });
            });
    faults.refuse();
    if (!ready(arena, limits)) return Exit::Ok;

    AnswerPrinter printer(stdout, asked, text, common.json, timer.restart());
    std::optional<BlockView> view;
    std::optional<ProgressBar> progress;
    const bool terminal = isatty(STDOUT_FILENO);
    if (o.visual) view.emplace(stdout, text.tokenizer.get(), terminal, terminal_width(), 0.06);
    if (requests.size() > 1)
        progress.emplace("answers", int64_t(requests.size()), progress_style(common.progress));
    Callbacks callbacks;
    callbacks.should_stop = interrupted;
    callbacks.on_reveal = [&](int request, const PartialResponse& so_far) {
        view ? view->show(so_far) : printer.reveal(so_far, requests[size_t(request)].options);
    };
    callbacks.every_step = o.visual;
    callbacks.on_finish = [&](int request, const Trajectory& t) {
        view ? view->finish() : printer.finish(request, t);
        if (progress) progress->update(printer.n_finished());
    };
    const std::vector<Trajectory> done = engine.generate(requests, callbacks);
    if (progress && !interrupted()) progress->finish();
    log_info("%s", summary(done, engine.forward_passes(), timer.seconds()).c_str());
    if (!o.trace_html.empty()) {
        Json traces = Json::array();
        for (size_t i = 0; i < done.size(); i++)
            traces.push_back(
                trace_json(done[i], asked[i], text, requests[i].options.block, config().full_attention));
        write_file_atomic(o.trace_html, trace_page(traces, path));
    }
    return interrupt_code();
}

Exit infer(const InferOptions& o, const Common& common, Prepared& prepared) {
    if (!o.encode.empty()) return encode(o);
    if (!prepared.prompts.empty() && prepared.prompts[0].where == SAMPLE_PROMPT) {
        log_info("model: %s, a small one that comes along and can do sums", prepared.path.c_str());
        log_info("prompt: %s   (another with --prompt TEXT)", prepared.prompts[0].shown.c_str());
    }
    Run run(o, common, prepared);
    if (!o.logits.empty()) return run.write_logits();
    return o.chat ? run.chat() : run.answer();
}

}  // namespace

int main(int argc, char** argv) {
    Common common;
    InferOptions options;
    Prepared prepared;
    return run_main(
        argc, argv,
        "Generates text with diffusion language models (SDAR, TraDo, Dream, LLaDA) and their autoregressive "
        "parents.",
        common,
        [&](Options& flags) {
            options.declare(flags, common);
            flags.check([&](Faults& faults) { prepare(prepared, options, common, flags, faults); });
        },
        [&](const Options&) { return infer(options, common, prepared); });
}
