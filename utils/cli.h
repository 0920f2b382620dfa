// cli.h -- the command line and the configuration file of every program.
//
//     int main(int argc, char** argv) {
//         Common common;
//         int steps = 4;
//         std::string model;
//         return run_main(argc, argv, "Generates text.", common,
//             [&](Options& options) {
//                 options.section("Model");
//                 options.add("--model DIR", &model, "a Hugging Face folder");
//                 options.section("Decoding");
//                 options.add("--steps S", &steps, "denoising steps per block").range(1, 64);
//                 options.check([&](Faults& faults) { if (model.empty()) faults.add("--model: say which"); });
//             },
//             [&](const Options& options) { ...; return Exit::Ok; });
//     }
//
// A variable's value at the time of add() is the default that --help shows. The file of --config sets options by name
// (`steps = 4`, below any [section]), and the command line overrides it; variables are set in the order of add(). `_`
// and `-` are the same in names. Every fault of both is found before run() is called, and all are listed, with exit
// code 2: checks try everything that does not depend on another fault (Faults::attempt).
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "utils/error.h"

// What every program takes; run_main() declares and applies these (threads, quiet, progress).
struct Common {
    std::string device = "auto";  // auto, cpu, cuda, cuda:1
    std::string dtype = "auto";   // auto, fp32, bf16
    uint64_t seed = 0;
    int threads = 0;  // 0: the cores there are; after parsing the number in use
    bool quiet = false;
    bool json = false;
    bool dry_run = false;
    std::string progress = "auto";
};

// What is wrong with a configuration, all of it.
class Faults {
  public:
    void add(const char* fmt, ...) __attribute__((format(printf, 2, 3)));
    // Runs `part`, which may throw an Error: every line of an Exit::Usage is a fault, any other code is kept for
    // refuse_others(). False if it threw: skip what needs the part.
    bool attempt(const std::function<void()>& part);
    // Throws Error(Usage) with every fault and what else was caught, one per line, where there are faults.
    void refuse_usage() const;
    // Throws what else was caught: all lines, the code of the first.
    void refuse_others() const;
    const std::vector<std::string>& all() const { return faults_; }

  private:
    std::vector<std::string> faults_;
    std::vector<Error> others_;
};

class Option {
  public:
    virtual ~Option() = default;
    virtual Option& range(double low, double high) = 0;            // of a number, or of each in a list
    virtual Option& choices(std::vector<std::string> values) = 0;  // of a string
    virtual Option& required() = 0;
    virtual Option& not_in_config() = 0;  // neither read from nor written to TOML
};
struct OptionEntry;  // option_entry.h: for what reads or writes options itself

class Options {
  public:
    // One of an enumeration's values, by name.
    struct Choice {
        std::vector<std::string> names;
        std::function<size_t()> get;
        std::function<void(size_t)> set;
    };
    // A list of numbers is written 1,2,3 on the command line; any list's option may be repeated; in TOML it is an array.
    using Target =
        std::variant<bool*, int*, int64_t*, uint64_t*, float*, double*, std::string*, std::vector<int>*,
                     std::vector<double>*, std::vector<std::string>*, std::optional<int>*,
                     std::optional<double>*, std::optional<std::string>*, Choice>;

    Options(std::string name, std::string summary);
    ~Options();
    Options(const Options&) = delete;
    Options& operator=(const Options&) = delete;

    // names: "--top-k N", "--prompt,-p TEXT", "--json" (a bool: a flag, with --no-json as its opposite),
    // "DIR" (positional; into a list of strings: all there are).
    Option& add(const std::string& names, Target target, const std::string& help);
    template <class Enum>
    Option& add_choice(const std::string& names, Enum* target,
                       std::vector<std::pair<std::string, Enum>> values, const std::string& help);
    void section(const std::string& title);  // heading of the options to come, in --help and in TOML
    void epilog(const std::string& text);    // examples, at the end of --help
    // Called after everything is read; adds what is wrong between options.
    void check(std::function<void(Faults&)> function);
    // A subcommand (`convert check`) with options of its own; the program's options are legal behind it too.
    Options& command(const std::string& name, const std::string& summary);
    std::string chosen() const;                        // the subcommand's name, "" without
    std::vector<OptionEntry*> entries() const;         // in the order of add()
    OptionEntry* find(const std::string& name) const;  // "max-tokens", "max_tokens"; null: there is none
    bool given(const std::string& name) const;         // "--top-k": set by command line or file
    bool typed(const std::string& name) const;         // "--top-k": set by the command line
    bool sound(const std::string& name) const;         // "--top-k": its value has no fault of its own
    // Adds a fault "NAME: why" for each of these options that is on the command line and has no effect beside `beside`. A
    // file may hold them, since it serves runs that switch parts of it off. Adds none if the value of `beside` is at fault
    // itself, since then it is not known what was meant.
    void refuse_typed(Faults& faults, const std::vector<std::string>& names, const std::string& why,
                      const std::string& beside = "") const;
    std::string to_toml() const;  // every option with its value, readable by --config

    // ---- for run_main and tests
    void add_common(Common& common);
    // Sets every variable. True: go on; false: there was --help, --version or --dump-config and nothing else
    // to do. Throws Error(Usage) with every fault, one per line.
    bool parse(const std::vector<std::string>& arguments);

  private:
    struct State;
    std::unique_ptr<State> state_;
};

// Parses, applies the common options, runs, and turns every exception into one clear line and an exit code.
int run_main(int argc, char** argv, const std::string& summary, Common& common,
             const std::function<void(Options&)>& declare, const std::function<Exit(const Options&)>& run);

template <class Enum>
Option& Options::add_choice(const std::string& names, Enum* target,
                            std::vector<std::pair<std::string, Enum>> values, const std::string& help) {
    Choice choice;
    for (const auto& value : values) choice.names.push_back(value.first);
    choice.get = [target, values] {
        for (size_t i = 0; i < values.size(); i++)
            if (values[i].second == *target) return i;
        return values.size();
    };
    choice.set = [target, values](size_t i) { *target = values[i].second; };
    return add(names, std::move(choice), help);
}
