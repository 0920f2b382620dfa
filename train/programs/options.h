// options.h -- the options of training: every knob is a flag and a key of the configuration file.
//
// A structure of flags declares itself and holds its defaults; it must outlive the Options it is declared in.
#pragma once
#include <string>

#include "train/masks.h"
#include "train/optimizer.h"
#include "train/rl_update.h"
#include "utils/cli.h"

// --objective --loss-norm --norm-length --kl-beta --clip-low --clip-high --shrink --keep-accuracy
// --masks --mask-low --mask-high --mask-ratio-per
// --gamma --lambda --value-clip --value-target
struct RlFlags {
    RlOptions options;
    std::string keep_accuracy = "0.2,0.8";
    void declare(Options& flags);
};

// "LO,HI" or "all". Throws Error(Usage).
KeepBand parse_keep_accuracy(const std::string& text);

// --lr --schedule --warmup --min-lr-ratio --beta1 --beta2 --adam-eps --weight-decay --max-grad-norm, each after `prefix`:
// "", "sft-" or "value-". What total_steps is, the program says.
void declare_optimizer(Options& flags, OptimizerOptions& options, const std::string& prefix);

// --method --mask-low --mask-high --weight-by-level --complementary --shrink --sft-block
void declare_sft_masks(Options& flags, SftMaskOptions& options);

// --replay --dump-grads [--dump-value-grads]
struct ReplayFlags {
    std::string file, dump_grads, dump_value_grads;
    void declare(Options& flags, bool has_value_model);
};
