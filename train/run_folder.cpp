#include "train/run_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <vector>

#include "utils/error.h"
#include "utils/json.h"
#include "utils/log.h"
#include "utils/toml.h"
#include "utils/words.h"

namespace fs = std::filesystem;

// A new folder, made at once, so that no run that begins in the same second takes it too.
static std::string fresh_folder(const std::string& name) {
    const time_t now = time(nullptr);
    char date[32];
    strftime(date, sizeof date, "%Y%m%d-%H%M%S", localtime(&now));
    const std::string base = "runs/" + name + "-" + date;
    make_folders("runs");
    std::string path = base;
    std::error_code error;
    for (int i = 2; !fs::create_directory(path, error); i++) {
        if (error) fail(Exit::Runtime, "%s: cannot be made (%s)", path.c_str(), error.message().c_str());
        path = base + format("-%d", i);
    }
    return path;
}

void RunFolder::check_free(const std::string& path, const std::string& name) {
    if (path.empty() && (name.empty() || name.find('/') != std::string::npos))
        fail(Exit::Usage, "--name '%s': is to be a part of runs/NAME-DATE; --out names a folder anywhere",
             name.c_str());
    if (path.empty()) return;
    if (file_exists(path + "/config.toml"))
        fail(Exit::Usage,
             "--out %s: a run is there already; choose another folder, or --resume %s to go on with it",
             path.c_str(), path.c_str());
    for (const char* other : {"config.json", "metrics.jsonl"})  // a model's; what is left of a run
        if (file_exists(path + "/" + other))
            fail(Exit::Usage, "--out %s: holds %s already; choose another folder", path.c_str(), other);
    fs::path missing = fs::absolute(path) / "config.toml";
    while (!file_exists(missing.parent_path())) missing = missing.parent_path();
    if (!folder_exists(missing.parent_path()))
        fail(Exit::Runtime, "--out %s: %s is a file; choose another folder", path.c_str(),
             missing.parent_path().c_str());
    try {
        check_writable(missing);
    } catch (const Error& e) {
        fail(e.code, "--out %s: %s", path.c_str(), e.what());
    }
}

RunFolder RunFolder::create(const std::string& path, const std::string& name,
                            const std::string& config_toml) {
    check_free(path, name);
    RunFolder run(path.empty() ? fresh_folder(name) : path);
    make_folders(run.file("ckpt"));
    make_folders(run.file("samples"));
    run.lock();
    write_file_atomic(run.file("config.toml"), config_toml);
    return run;
}

std::string RunFolder::program_of(const std::string& path) {
    const std::string config = path + "/config.toml";
    if (!file_exists(config) || folder_exists(config)) return "";
    try {
        const std::string text = read_text(config), line = text.substr(0, text.find('\n'));
        for (const char* program : {"train_sft", "train_tracerl"})
            if (line == std::string("# ") + program) return program;
    } catch (const Error&) {  // who reads its options will say so
    }
    return "";
}

// Why a path is not a run's folder, and what to do.
static std::string why_no_run(const std::string& path) {
    if (!file_exists(path)) return "there is no such folder";
    if (!folder_exists(path)) return "is a file; name the run's folder";
    const fs::path run = fs::path(path) / "../..";
    if (file_exists(path + "/state.json") && file_exists(run / "config.toml"))
        return "is a checkpoint; name the run's folder, " + fs::weakly_canonical(run).string();
    if (file_exists(path + "/config.json")) return "is a model, not a run; --model begins a new run with it";
    return "is no run's folder: config.toml is missing";
}

// The names of a folder's entries step-*, sorted.
static std::vector<std::string> steps_in(const std::string& folder) {
    std::vector<std::string> all;
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(folder, error))
        if (entry.path().filename().string().starts_with("step-"))
            all.push_back(entry.path().filename().string());
    std::sort(all.begin(), all.end());
    return all;
}

// What a process that was killed while it saved has left there: checkpoints are large.
static void remove_unfinished(const std::string& folder) {
    std::vector<fs::path> left;
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(folder, error)) {
        const std::string name = entry.path().filename().string();
        if (name.starts_with(".step-") && name.find(".tmp-") != std::string::npos)
            left.push_back(entry.path());
    }
    for (const fs::path& path : left) {
        fs::remove_all(path, error);
        if (error) log_warning("%s: cannot be removed", path.c_str());
    }
}

// How to go on with a run whose `latest` does not lead to a checkpoint.
static std::string remedy(const std::string& run) {
    const std::vector<std::string> all = steps_in(run + "/ckpt");
    if (all.empty())
        return format("ckpt/ holds none; begin again with --config %s",
                      shell_word(run + "/config.toml").c_str());
    return format("the newest in ckpt/ is taken after: echo ckpt/%s > %s", all.back().c_str(),
                  shell_word(run + "/latest").c_str());
}

RunFolder RunFolder::open(const std::string& path, const std::string& program) {
    if (!file_exists(path + "/config.toml"))
        fail(Exit::BadFile, "--resume %s: %s", path.c_str(), why_no_run(path).c_str());
    const std::string of = program_of(path);
    if (!of.empty() && of != program)
        fail(Exit::Usage, "--resume %s: is a run of %s; go on with ./%s --resume %s", path.c_str(),
             of.c_str(), of.c_str(), shell_word(path).c_str());
    RunFolder run(path);
    run.lock();
    remove_unfinished(run.file("ckpt"));
    if (run.latest().empty())
        fail(Exit::BadFile, "--resume %s: no checkpoint is named by `latest`, which is missing or empty; %s",
             path.c_str(), remedy(path).c_str());
    return run;
}

RunFolder::RunFolder(RunFolder&& other) noexcept
    : path_(std::move(other.path_)), lock_fd_(other.lock_fd_), metrics_lines_(other.metrics_lines_) {
    other.lock_fd_ = -1;
}

RunFolder::~RunFolder() {
    if (lock_fd_ >= 0) close(lock_fd_);
}

void RunFolder::lock() {
    const std::string name = file(".lock");
    lock_fd_ = ::open(name.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0666);
    if (lock_fd_ < 0) fail(Exit::Runtime, "%s: cannot be opened (%s)", name.c_str(), strerror(errno));
    if (flock(lock_fd_, LOCK_EX | LOCK_NB))
        fail(Exit::Usage, "%s: another process is running in this folder", path_.c_str());
}

void RunFolder::set_options(const std::string& config_toml) {
    auto before = toml_texts(read_text(file("config.toml"))), now = toml_texts(config_toml);
    for (const char* shown : {"progress", "quiet", "json"}) before.erase(shown), now.erase(shown);
    if (before == now) return;
    write_file_atomic(file("config.toml"), config_toml);
    for (const auto& [key, value] : now) {
        const auto found = before.find(key);
        if (found != before.end() && found->second == value) continue;
        log_info("--%s %s from here on, %s before", key.c_str(), shell_word(value).c_str(),
                 found == before.end() ? "unset" : shell_word(found->second).c_str());
    }
}

void RunFolder::metrics(const Json& line) {
    const std::string name = file("metrics.jsonl"), text = dump(line) + "\n";
    FILE* out = fopen(name.c_str(), "a");
    if (!out) fail(Exit::Runtime, "%s: cannot be opened (%s)", name.c_str(), strerror(errno));
    const bool written = fwrite(text.data(), 1, text.size(), out) == text.size();
    if ((fclose(out) != 0) || !written)
        fail(Exit::Runtime, "%s: cannot be written (%s)", name.c_str(), strerror(errno));
    metrics_lines_++;
}

void RunFolder::truncate_metrics(int64_t lines) {
    const std::string name = file("metrics.jsonl"), text = file_exists(name) ? read_text(name) : "";
    size_t keep = 0;
    for (int64_t i = 0; i < lines; i++) {
        const size_t end = text.find('\n', keep);
        if (end == std::string::npos)
            fail(Exit::BadFile,
                 "%s: has %lld lines, the checkpoint was saved after %lld; put the file back, or start a new "
                 "run",
                 name.c_str(), (long long)i, (long long)lines);
        keep = end + 1;
    }
    write_file_atomic(name, text.substr(0, keep));
    metrics_lines_ = lines;
}

void RunFolder::prune(const std::string& folder, int keep, const std::string& newest) const {
    if (keep <= 0) return;
    const std::vector<std::string> all = steps_in(file(folder));
    // Entries beyond `newest` (after a resume from an older checkpoint) are of steps that will be done and written again.
    const auto end = size_t(std::upper_bound(all.begin(), all.end(), newest) - all.begin());
    for (size_t i = 0; i + size_t(keep) < end; i++) {
        const std::string old = file(folder + "/" + all[i]);
        std::error_code ignored;  // something old that cannot be removed is no reason to stop a run
        fs::remove_all(old, ignored);
        if (ignored) log_warning("%s: cannot be removed", old.c_str());
    }
}

void RunFolder::sample(const std::string& name, const std::string& content, int keep) {
    write_file_atomic(file("samples/" + name), content);
    prune("samples", keep, name);
}

void RunFolder::checkpoint(int64_t step, int keep, const std::function<void(const std::string&)>& fill) {
    const std::string name = format("step-%06ld", long(step));
    AtomicFolder folder(file("ckpt/" + name), true);
    fill(folder.path());
    // The state counts lines of metrics.jsonl: after a power cut, too, they have to be there if it is.
    if (const int metrics = ::open(file("metrics.jsonl").c_str(), O_RDONLY | O_CLOEXEC); metrics >= 0) {
        fsync(metrics);
        ::close(metrics);
    }
    folder.commit();
    write_file_atomic(file("latest"), "ckpt/" + name + "\n");
    prune("ckpt", keep, name);
}

std::string RunFolder::latest() const {
    if (!file_exists(file("latest"))) return "";
    std::string name = read_text(file("latest"));
    while (!name.empty() && (name.back() == '\n' || name.back() == '\r')) name.pop_back();
    if (name.empty()) return "";
    if (!folder_exists(file(name)))
        fail(Exit::BadFile, "%s: names '%s', which is not there; %s", file("latest").c_str(), name.c_str(),
             remedy(path_).c_str());
    return file(name);
}
