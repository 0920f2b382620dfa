#include "inference/infer_options.h"

static const char* EXAMPLES = R"(Examples:
  ./infer --block 8
      the small model that comes along answers a sample prompt
  ./infer --prompt "12+34=" --num-samples 4 --temperature 1 --json
      four samples as JSON lines: ids, reveal steps, log-probabilities, text
  ./infer --visual --block 8
      watch the blocks fill in
With a model of your own: ./infer --model SDAR-1.7B-Chat --chat

Exit codes: 0 ok, 1 runtime failure, 2 usage, 3 bad file, 4 not enough memory, 130 interrupted.)";

static const char* FILLED_IN = "a text with gaps is taken as it is with --infill; leave it out";

void InferOptions::declare(Options& flags, const Common& common) {
    flags.section("Model");
    flags.add("--model,-m DIR", &model,
              "a Hugging Face folder, or a run's for its newest checkpoint (default: the small model that "
              "comes along)");
    text.declare(flags);
    flags.section("Input (none of them: standard input where it is piped and not empty)");
    flags.add("--prompt,-p TEXT", &prompt, "what to answer, or with --chat-template raw to continue");
    flags.add("--file,-f FILE", &file, "the same from a file");
    flags.add("--prompt-ids IDS", &prompt_ids, "the same as token ids: 1,2,3");
    flags.add(
        "--input FILE", &input,
        "JSON lines with prompt, messages or prompt_ids, an optional id, and decoding options of their own "
        "(top_k, seed, num_samples ...); - is standard input");
    flags.add("--chat,-i", &chat, "talk; /help lists the commands");
    flags.add("--system,-s TEXT", &system, "system message in front of a prompt");
    flags.add("--infill", &decoding.options.infill,
              "fill in the mask tokens of the prompt instead of going on after it (full attention)");
    flags.add("--encode FILE", &encode,
              "only turn the text or messages of JSON lines into ids, with --tokenizer; - is standard input");
    decoding.declare(flags);
    flags.add("--num-samples N", &num_samples, "answers to each prompt").range(1, 1 << 20);
    flags.section("Limits");
    flags.add("--max-active,--max-batch N", &max_active, "sequences in flight at once").range(1, 1 << 16);
    flags.add("--max-rows N", &max_rows, "tokens of one forward pass (0: planned)").range(0, 1 << 24);
    flags.add("--kv-slots N", &kv_slots, "tokens the cache holds (0: planned; with --chat 4096)")
        .range(0, 1 << 30);
    flags.section("Output");
    flags.add("--visual", &visual, "watch the blocks fill in, on a terminal");
    flags.add("--trace-html FILE", &trace_html, "one page that plays back how every token was revealed");
    flags.add("--logits FILE", &logits,
              "write the logits of one pass over the prompt as it stands (safetensors); generate nothing");
    flags.epilog(EXAMPLES);
    flags.check([this, &flags, &common](Faults& faults) {
        for (std::string* lines : {&input, &encode})
            if (*lines == "-") *lines = "/dev/stdin";
        // A prompt may be empty; a written configuration, which holds every option, says nothing with that.
        prompt_given = !prompt.empty() || flags.typed("--prompt");
        prompt_ids_given = !prompt_ids.empty() || flags.typed("--prompt-ids");
        const int sources =
            prompt_given + !file.empty() + prompt_ids_given + !input.empty() + chat + !encode.empty();
        if (sources > 1)
            faults.add("--prompt, --file, --prompt-ids, --input, --chat and --encode exclude each other");
        if (!encode.empty() && text.tokenizer.empty() && model.empty() && !flags.given("--dump-config"))
            faults.add("--encode: say which --tokenizer");
        const auto idle = [&](const std::vector<std::string>& names, const char* why) {
            flags.refuse_typed(faults, names, why);
        };
        const char* nothing = nullptr;
        if (!logits.empty()) nothing = "--logits generates nothing; leave one of them out";
        if (!encode.empty()) nothing = "--encode generates nothing; leave one of them out";
        if (nothing) {
            idle({"--infill", "--trace-html", "--visual"}, nothing);
            DecodingFlags::refuse_all(flags, nothing, faults);
        }
        if (!encode.empty()) idle({"--block", "--logits", "--system", "--dry-run"}, nothing);
        if (!logits.empty() && (chat || !input.empty()))
            faults.add("--logits takes one prompt: --prompt, --file or --prompt-ids");
        if (chat && common.json) faults.add("--chat and --json exclude each other");
        if (chat && decoding.options.infill) faults.add("--chat and --infill exclude each other");
        if (chat && num_samples > 1) faults.add("--chat and --num-samples exclude each other");
        if (chat) idle({"--trace-html", "--visual"}, "is for single answers, not for --chat; leave it out");
        if (visual && (common.json || !input.empty()))
            faults.add("--visual shows one answer: not with --json or --input");
        if (visual && num_samples > 1) faults.add("--visual shows one answer: not with --num-samples");
        if (prompt_ids_given)
            idle({"--system"}, "stands in front of a text, --prompt-ids are ids; leave it out");
        if (decoding.options.infill) idle({"--system"}, FILLED_IN);
        // Lines of --input have a say of their own, and in a chat /set has.
        if (!nothing && input.empty() && !chat) refuse_idle(flags, faults);
    });
}

void InferOptions::refuse_idle(const Options& flags, Faults& faults) const {
    if (flags.given("--num-samples") && num_samples > 1 && decoding.is_greedy(flags))
        faults.add("--num-samples %d: at --temperature 0 or --top-k 1 they would all be the same",
                   num_samples);
    if (decoding.options.infill) flags.refuse_typed(faults, {"--gen-length"}, FILLED_IN);
    decoding.refuse_idle(flags, false, faults);
}
