// tracerl_run.h -- a whole training run: warm start, reinforcement learning, evaluations, checkpoints, report. Can be
// stopped and resumed at any step.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "train/run_folder.h"
#include "train/tracerl.h"
#include "train/warm_start.h"
#include "utils/json_forward.h"
#include "utils/progress.h"

struct TraceRlRunOptions {
    // warm start
    WarmStartOptions sft;
    OptimizerOptions sft_optimizer;
    double sft_until = 1;  // dynamic accuracy at which the warm start ends early
    int64_t sft_eval_every = 50;
    // reinforcement learning
    int64_t steps = 100;
    TraceRlOptions rl;
    OptimizerOptions optimizer, value_optimizer;
    bool reset_optimizer_each_step = false;
    // Block enlargement: updates are made in blocks of train_block (0: the rollout's) from the first RL step on,
    // rollouts and evaluations from RL step enlarge_at on (0: never).
    int train_block = 0;
    int64_t enlarge_at = 0;
    // From RL step `step` on responses have at most gen_length tokens; before the first entry, and without any, at most
    // rl.rollout.gen_length, which no entry exceeds.
    struct Limit {
        int64_t step;
        int gen_length;
    };
    std::vector<Limit> length_schedule;
    // The value model begins as the policy's body after the warm start, with a zero head.
    bool value_from_policy = false;
    // evaluation and records
    int eval_problems = 256;     // held-out problems of every evaluation
    int eval_samples = 1;        // responses to each
    float eval_temperature = 0;  // of them
    int sft_eval_problems = 128;
    int64_t eval_every = 0;     // RL steps between evaluations; 0: only before and after
    int64_t save_every = 0;     // RL steps between checkpoints; 0: only at the end and when stopped
    int keep = 2;               // checkpoints that are kept
    int64_t samples_every = 1;  // RL steps between files of samples/; 0: only those of evaluations
    int keep_samples = 0;       // files of RL steps that are kept; 0: all
    ProgressStyle progress = ProgressStyle::Auto;
};

class TraceRlRun {
  public:
    // eval_task: whose held-out problems are evaluated on; may be `task`. save(folder) writes the model folder of the
    // current weights (policy, and the value model beside it).
    TraceRlRun(const TraceRlRunOptions& options, Learner& policy, Learner* value, Engine& engine,
               const TextCodec& codec, const Task& task, const Task& eval_task, RunFolder& folder,
               std::function<void(const std::string& folder)> save);

    // Takes over optimizer state and progress from a checkpoint (its weights are loaded already).
    void resume(const std::string& checkpoint);

    // Runs to the end. When should_stop turns true, the step under way is dropped, the state before it is saved, and
    // false is returned. Throws Error(Runtime), after saving, where three updates in a row are not finite.
    bool run(const std::function<bool()>& should_stop);

    // The table before / after SFT / after RL, and sample problems with their reveal order.
    std::string summary();
    // Its figures: name, step, static and dynamic of every evaluation.
    std::vector<Json> evaluations() const;

    // The block length of rollouts: now, and at the end of the run.
    int rollout_block() const;
    int final_block() const;
    // How long a response may be now, by the length schedule.
    int generation_limit() const;

  private:
    enum class Phase { Sft, Rl, Done };
    struct Milestone {  // an evaluation on the held-out problems
        std::string name;
        int64_t step;
        RolloutStats fixed, dynamic;
    };
    bool warm_start(const std::function<bool()>& should_stop);
    bool reinforce(const std::function<bool()>& should_stop);
    bool milestone(const std::string& name, int block, const std::function<bool()>& should_stop);
    bool milestone_before_rl(const std::function<bool()>& should_stop);
    void set_training_block(int block);
    RolloutStats quick_accuracy();
    void begin_rl();
    void make_value_model();
    void record_step(const TraceRlStep& step, int gen_length, double seconds);
    void record_examples(const std::string& milestone, int block, const RolloutBatch& examples);
    void count_bad_updates(int updates, int skipped);
    void save_checkpoint();

    const TraceRlRunOptions& options_;
    Learner& policy_;
    Learner* value_;
    Engine& engine_;
    const TextCodec& codec_;
    const Task &task_, &eval_task_;
    RunFolder& folder_;
    std::function<void(const std::string&)> save_;
    Phase phase_ = Phase::Sft;
    int64_t sft_step_ = 0, rl_step_ = 0;
    bool sft_done_ = false;  // at sft.steps, or right often enough
    int64_t draws_ = 0;      // rollouts that were made for RL, those of no use included
    int bad_updates_ = 0;    // in a row, of the warm start or of RL
    bool warned_of_token_rewards_ = false;
    std::vector<Milestone> milestones_;
};
