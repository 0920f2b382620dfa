// run_folder.h -- the folder of one training run: what was asked for, what came out, and where to go on from.
//
//   config.toml       every option as resolved, by the newest resume if it changed some; `--config` takes it again
//   metrics.jsonl     one JSON object per step; after a resume, what is done again replaces its old lines
//   main.log          everything that was logged
//   samples/          trajectories, as --replay takes them: of every step (or --samples-every), and some of every
//                     evaluation (eval-*)
//   report.html       curves and samples, rewritten at every checkpoint
//   ckpt/step-N/      a Hugging Face folder + optimizer.safetensors + state.json, under a temporary name until whole
//   latest            the name of the newest checkpoint, "ckpt/step-N"
#pragma once
#include <functional>
#include <string>

#include "utils/files.h"
#include "utils/json_forward.h"

class RunFolder {
  public:
    // A fresh folder: `path`, or runs/NAME-DATE where it is empty. Refuses one that holds a run already.
    // Throws Error(Usage).
    static RunFolder create(const std::string& path, const std::string& name, const std::string& config_toml);
    // Throws what create() would: Error(Usage) where the path holds a run or the name is invalid, Error(Runtime) where the
    // folder cannot be made.
    static void check_free(const std::string& path, const std::string& name);
    // An existing run of `program` (train_sft, train_tracerl), locked. Throws Error(BadFile) where there is none or it has
    // no checkpoint, Error(Usage) where it is another program's. What a process that was killed while it saved left in ckpt/ is
    // removed.
    static RunFolder open(const std::string& path, const std::string& program);
    // The program whose run is in the folder: config.toml begins with "# train_sft" or "# train_tracerl"; "" otherwise.
    static std::string program_of(const std::string& path);
    ~RunFolder();
    RunFolder(RunFolder&& other) noexcept;

    const std::string& path() const { return path_; }
    std::string file(const std::string& name) const { return path_ + "/" + name; }

    // config.toml as the run goes on: with what the command line of a resume changed, which is logged. Only once the
    // checkpoint is loaded, so that options that do not fit it are not kept.
    void set_options(const std::string& config_toml);

    // Appends a line to metrics.jsonl.
    void metrics(const Json& line);
    int64_t metrics_lines() const { return metrics_lines_; }  // written so far: belongs into state.json
    // Keeps the first `lines` lines: what came after them is about to be done again.
    void truncate_metrics(int64_t lines);
    // Writes samples/NAME, then removes all but the newest `keep` files step-* of it (0: none is removed).
    void sample(const std::string& name, const std::string& content, int keep = 0);

    // Builds ckpt/step-N by `fill` (which writes files into the folder it is given) and makes it the latest;
    // then removes all but the newest `keep` checkpoints (0: none is removed).
    void checkpoint(int64_t step, int keep, const std::function<void(const std::string& folder)>& fill);
    std::string latest() const;  // path of the newest checkpoint; empty where there is none

  private:
    // Of a folder's entries step-* up to `newest`, in the order of their names, removes all but the last `keep`.
    void prune(const std::string& folder, int keep, const std::string& newest) const;
    RunFolder(std::string path) : path_(std::move(path)) {}
    void lock();  // one process per run; throws Error(Usage) where another has it
    std::string path_;
    int lock_fd_ = -1;
    int64_t metrics_lines_ = 0;
};
