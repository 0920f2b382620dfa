#include "train/programs/resume.h"

#include <string_view>

#include "train/run_folder.h"

// The value of an option in `--name VALUE` or `--name=VALUE`; "" where it is absent.
static std::string value_of(const std::vector<std::string>& arguments, const std::string& name) {
    for (size_t i = 1; i < arguments.size(); i++) {
        if (arguments[i] == name && i + 1 < arguments.size()) return arguments[i + 1];
        if (arguments[i].starts_with(name + "=")) return arguments[i].substr(name.size() + 1);
    }
    return "";
}

ResumedArguments::ResumedArguments(int argc, char** argv, const std::string& program,
                                   const std::string& default_config)
    : storage_(argv, argv + argc) {
    const auto given = [&](const char* name) { return !value_of(storage_, name).empty(); };
    std::string config;
    if (given("--resume"))
        config = value_of(storage_, "--resume") + "/config.toml";
    else if (!default_config.empty() && !given("--replay") && !given("--model"))
        config = beside_program(default_config);
    // Without a config.toml, or with another program's, RunFolder::open() says what is wrong.
    const std::string of = RunFolder::program_of(value_of(storage_, "--resume"));
    if (!config.empty() && !given("--config") && file_exists(config) && (of.empty() || of == program))
        storage_.insert(storage_.begin() + 1, {"--config", config});
    for (std::string& s : storage_) values_.push_back(s.data());
    values_.push_back(nullptr);
}
