// tracerl_world.h -- everything a run of reinforcement learning needs, very small: a model, a task, an engine, options.
#pragma once
#include "tests/temporary_folder.h"
#include "tokenizer/byte_tokenizer.h"
#include "train/codec.h"
#include "train/tracerl_run.h"
#include "weights_tools/init_folder.h"
#include "weights_tools/model_folder.h"

// A body of width 16 of every family.
inline ModelConfig small_config(Family family) {
    const Vocabulary bytes = {BYTE_VOCABULARY, BYTE_MASK, {BYTE_IM_END, BYTE_END_OF_TEXT}};
    std::vector<std::string> set = {"hidden_size=16",        "num_hidden_layers=2",
                                    "num_attention_heads=2", "intermediate_size=24",
                                    "num_key_value_heads=1", "max_position_embeddings=64"};
    if (family == Family::Dream) return init_config("dream-7b", bytes, set);
    if (family == Family::Llada)
        return init_config("llada-8b", bytes,
                           {"d_model=16", "n_layers=2", "n_heads=2", "n_kv_heads=2", "mlp_hidden_size=24",
                            "max_sequence_length=64"});
    set.push_back("head_dim=8");
    return init_config("tiny", bytes, set);
}

// Everything a run needs, as train_tracerl builds it.
struct World {
    std::unique_ptr<Ops> ops = make_cpu_ops();
    ModelConfig config;
    TextModel text = load_text_model("bytes", "auto", "", config);
    TextCodec codec = make_codec(text, prompt_template("chat"), false);
    Task task = make_task("arithmetic:digits=1,working=off", 3);
    TraceRlRunOptions options;
    std::unique_ptr<Learner> policy, value;
    Arena engine_arena{"rollout", *ops};
    std::unique_ptr<Engine> engine;

    explicit World(bool with_value, Family family = Family::Sdar) : config(small_config(family)) {
        options.sft.steps = 3;
        options.sft.batch = 4;
        options.sft_eval_every = 2;
        options.sft_eval_problems = 4;
        options.sft_optimizer.lr = 1e-2;
        options.steps = 3;
        options.rl.tasks = 3;
        options.rl.responses = 4;
        options.rl.epochs = 2;
        options.rl.mini_batches = 2;
        options.rl.seed = options.sft.seed = 11;
        options.rl.rollout = {.block = 4, .temperature = 1, .stop_ids = text.eos_ids, .seed = 11};
        // An untrained model says anything: a response that ends does so because a quarter of all bytes end it.
        options.rl.rollout.gen_length = 12;
        for (int id = 0; id < 256; id += 4) options.rl.rollout.stop_ids.push_back(id);
        options.rl.rl.keep.all = true;
        options.optimizer.lr = options.value_optimizer.lr = 1e-3;
        options.eval_problems = 4;
        options.eval_every = 2;
        options.save_every = 1;
        options.value_from_policy = with_value;
        options.progress = ProgressStyle::None;
        // By its length a response is right, half right or wrong, so that groups differ even for an untrained model.
        task.reward = [](const Problem&, std::string_view s) { return double(s.size() % 3) / 2; };
        const MicroBatchLimits limits{256, 256};
        const int block = config.full_attention ? 0 : 4;
        policy = std::make_unique<Learner>(*ops, config, Head::Policy, block, limits, options.sft_optimizer);
        if (with_value)
            value =
                std::make_unique<Learner>(*ops, config, Head::Value, block, limits, options.value_optimizer);
        engine = std::make_unique<Engine>(*ops, policy->config, policy->weights,
                                          EngineLimits{.max_active = 5, .max_rows = 80, .kv_slots = 200},
                                          text.n_ids, engine_arena);
        engine_arena.allocate();
        policy->allocate();
        initialize(policy->weights, config, 5);
        if (value) value->allocate();
    }
    void save(const std::string& path) {
        save_model_folder(path, policy->weights, policy->config, "", DType::F32, *ops);
        if (!value) return;
        make_folders(path + "/value_model");
        save_model_folder(path + "/value_model", value->weights, value->config, "", DType::F32, *ops);
    }
    void load(const std::string& path) {
        load_weights(open_model_folder(path, Head::Policy), policy->weights, *ops);
        if (value) load_weights(open_model_folder(path + "/value_model", Head::Value), value->weights, *ops);
    }
    std::unique_ptr<TraceRlRun> run(RunFolder& folder) {
        return std::make_unique<TraceRlRun>(options, *policy, value.get(), *engine, codec, task, task, folder,
                                            [this](const std::string& path) { save(path); });
    }
};
