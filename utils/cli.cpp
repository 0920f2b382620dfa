#include "utils/cli.h"

#include <fcntl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <map>
#include <new>

#include "utils/files.h"
#include "utils/log.h"
#include "utils/option_entry.h"
#include "utils/progress.h"
#include "utils/signals.h"
#include "utils/threads.h"
#include "utils/toml.h"
#include "utils/words.h"

constexpr const char* VERSION = "0.1";

void Faults::add(const char* fmt, ...) {
    va_list args;
    va_start(args, fmt);
    const std::string fault = vformat(fmt, args);
    va_end(args);
    // The same may be wrong with each of two models: say it once.
    if (std::find(faults_.begin(), faults_.end(), fault) == faults_.end()) faults_.push_back(fault);
}

bool Faults::attempt(const std::function<void()>& part) {
    try {
        part();
        return true;
    } catch (const Error& error) {
        if (error.code != Exit::Usage)
            others_.push_back(error);
        else
            for (const std::string& line : split(error.what(), '\n')) add("%s", line.c_str());
        return false;
    }
}

static std::string joined(const std::vector<std::string>& faults, const std::vector<Error>& others) {
    std::string all;
    for (const std::string& fault : faults) all += (all.empty() ? "" : "\n") + fault;
    for (const Error& other : others) all += (all.empty() ? "" : "\n") + std::string(other.what());
    return all;
}

void Faults::refuse_usage() const {
    if (!faults_.empty()) throw Error(Exit::Usage, joined(faults_, others_));
}

void Faults::refuse_others() const {
    if (!others_.empty()) throw Error(others_[0].code, joined({}, others_));
}

// ---- Options

struct Options::State {
    std::string name, summary, epilog_text, current_section;
    std::string config, dump_config;
    bool version = false, help_wanted = false;
    CLI::App app;
    State* parent = nullptr;
    std::vector<std::unique_ptr<OptionEntry>> entries;
    std::vector<std::function<void(Faults&)>> checks;
    std::vector<std::unique_ptr<Options>> commands;

    State* chosen() {
        for (const auto& command : commands)
            if (command->state_->app.parsed()) return command->state_.get();
        return nullptr;
    }
    // The options in force: the program's and the chosen command's.
    std::vector<OptionEntry*> in_force() {
        std::vector<OptionEntry*> all;
        if (State* command = chosen())
            for (const auto& entry : command->entries) all.push_back(entry.get());
        for (const auto& entry : entries) all.push_back(entry.get());
        return all;
    }
    OptionEntry* find(const std::string& key) {
        for (OptionEntry* entry : in_force())
            if (entry->has_name(key)) return entry;
        return nullptr;
    }
    // "--top-k", an option that there is.
    const OptionEntry& entry(const std::string& name) {
        const OptionEntry* found = (parent ? parent : this)->find(name.substr(name.find_first_not_of('-')));
        CHECK(found, "no option %s", name.c_str());
        return *found;
    }
    std::string suggestion(const std::string& key, const char* dashes, bool as_key) {
        const OptionEntry* best = nullptr;
        size_t best_distance = key.size() < 4 ? 2 : key.size() / 3 + 2;  // and less than that
        for (const OptionEntry* entry : in_force()) {
            if (entry->dashed.empty()) continue;
            const bool part = key.size() > 3 && entry->name.find(key) != std::string::npos;
            const size_t distance = part ? 1 : edit_distance(key, entry->name);
            if (distance < best_distance) best_distance = distance, best = entry;
        }
        if (!best)
            return std::string(as_key ? "; --dump-config lists the keys" : "; --help lists the options");
        return std::string("; did you mean ") + dashes + (as_key ? underscores(best->name) : best->name) +
               "?";
    }
    // What to do about an argument that none is expected for.
    std::string advice(const std::string& word) {
        for (const auto& command : commands)
            if (!chosen() && edit_distance(word, command->state_->name) <= 2)
                return "did you mean the command " + command->state_->name + "?";
        if (word.ends_with(".toml")) return "did you mean --config " + word + "?";
        return "--help shows the usage";
    }
    std::string help(const std::string& program);
    void read_config(Faults& faults);
    void read_command_line(const std::vector<std::string>& arguments, Faults& faults);
};

Options::Options(std::string name, std::string summary) : state_(std::make_unique<State>()) {
    state_->name = std::move(name);
    state_->summary = std::move(summary);
    state_->app.set_help_flag("");
    state_->app.allow_extras();
    state_->app.require_subcommand(0, 1);
}

Options::~Options() = default;

Option& Options::add(const std::string& names, Target target, const std::string& help) {
    auto entry = std::make_unique<OptionEntry>();
    entry->section = state_->current_section;
    entry->help = help;
    entry->target = std::move(target);
    const size_t space = names.find(' ');
    entry->metavar = space == std::string::npos ? "" : names.substr(space + 1);
    std::string cli_names;
    for (const std::string& name : split(names.substr(0, space), ',')) {
        if (name[0] != '-') {  // positional
            entry->metavar = name;
            entry->name = cli_names = name;
            entry->in_config = false;
            break;
        }
        entry->dashed.push_back(name);
        cli_names += (cli_names.empty() ? "" : ",") + name;
        if (name.starts_with("--")) {
            if (entry->name.empty()) entry->name = name.substr(2);
            if (name.find('-', 2) != std::string::npos) cli_names += ",--" + underscores(name.substr(2));
            if (entry->is_flag()) {
                cli_names += ",!--no-" + name.substr(2) + ",!--no_" + underscores(name.substr(2));
            }
        }
    }
    CHECK(!entry->name.empty(), "option '%s' has no long name", names.c_str());
    entry->default_text = entry->value_text(false);
    OptionEntry* e = entry.get();
    if (e->is_flag()) {
        state_->app.add_flag_function(cli_names, [e](int64_t count) {
            e->on_command_line = true;
            e->arguments = {count > 0 ? "true" : "false"};
        });
    } else {
        const bool many = e->dashed.empty() && std::holds_alternative<std::vector<std::string>*>(e->target);
        state_->app
            .add_option(cli_names,
                        [e](const CLI::results_t& results) {
                            e->on_command_line = true;
                            e->arguments = results;
                            return true;
                        })
            ->expected(1, many ? 1 << 20 : 1)
            ->allow_extra_args(many)
            ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
    }
    state_->entries.push_back(std::move(entry));
    return *e;
}

void Options::section(const std::string& title) { state_->current_section = title; }
void Options::epilog(const std::string& text) { state_->epilog_text = text; }
void Options::check(std::function<void(Faults&)> function) { state_->checks.push_back(std::move(function)); }

Options& Options::command(const std::string& name, const std::string& summary) {
    auto command = std::make_unique<Options>(name, summary);
    State& state = *command->state_;
    state.parent = state_.get();
    // CLI11 owns subcommands through shared pointers; this one belongs to its Options.
    state_->app.add_subcommand(std::shared_ptr<CLI::App>(&state.app, [](CLI::App*) {}));
    state.app.name(name);
    state.app.fallthrough();
    state_->commands.push_back(std::move(command));
    return *state_->commands.back();
}

std::string Options::chosen() const {
    const State* command = state_->chosen();
    return command ? command->name : "";
}

bool Options::given(const std::string& name) const { return state_->entry(name).set; }
bool Options::typed(const std::string& name) const { return state_->entry(name).on_command_line; }
bool Options::sound(const std::string& name) const { return !state_->entry(name).faulty; }

void Options::refuse_typed(Faults& faults, const std::vector<std::string>& names, const std::string& why,
                           const std::string& beside) const {
    if (!beside.empty() && !sound(beside)) return;
    for (const std::string& name : names)
        if (const OptionEntry& entry = state_->entry(name); entry.on_command_line && !entry.faulty)
            faults.add("%s: %s", name.c_str(), why.c_str());
}

std::vector<OptionEntry*> Options::entries() const { return state_->in_force(); }
OptionEntry* Options::find(const std::string& name) const { return state_->find(hyphens(name)); }

void Options::add_common(Common& common) {
    section("Common");
    add("--config FILE", &state_->config, "read options from a TOML file; the command line beats it")
        .not_in_config();
    add("--dump-config FILE", &state_->dump_config,
        "write every option with its value as TOML (- is stdout) and stop")
        .not_in_config();
    add("--device NAME", &common.device, "auto, cpu, cuda or cuda:INDEX");
    add("--dtype TYPE", &common.dtype,
        "of weights: fp32 or bf16; auto: as the folder has them, in training bf16 on a GPU and fp32 "
        "elsewhere")
        .choices({"auto", "fp32", "bf16"});
    add("--seed N", &common.seed, "of every random number");
    add("--threads N", &common.threads, "CPU threads (0: as many as there are cores for this process)")
        .range(0, 1024);
    add("--progress STYLE", &common.progress, "auto, bar, lines or none")
        .choices({"auto", "bar", "lines", "none"});
    add("--json", &common.json, "results as JSON lines on stdout");
    add("--quiet,-q", &common.quiet, "say nothing but results, warnings and errors");
    add("--dry-run", &common.dry_run, "check everything, print the plan with its memory, and stop")
        .not_in_config();
    add("--help,-h", &state_->help_wanted, "print this and stop").not_in_config();
    add("--version", &state_->version, "print the version and stop").not_in_config();
}

std::string Options::State::help(const std::string& program) {
    std::string text = "Usage: " + program;
    if (!commands.empty() && !chosen()) text += " COMMAND";
    std::vector<const OptionEntry*> all;
    for (const auto& entry : entries) all.push_back(entry.get());
    for (const OptionEntry* entry : all)
        if (entry->dashed.empty()) text += " " + entry->metavar;
    text += " [OPTION]...\n" + wrap(summary, 0, 100) + "\n";
    if (!commands.empty()) {
        text += "\nCommands:\n";
        for (const auto& command : commands)
            text += format("  %-16s %s\n", command->state_->name.c_str(),
                           wrap(command->state_->summary, 19, 100).c_str());
    }
    if (parent)
        for (const auto& entry : parent->entries) all.push_back(entry.get());
    const std::string* section = nullptr;
    for (const OptionEntry* entry : all) {
        if (!section || *section != entry->section) {
            section = &entry->section;
            text += "\n" + (section->empty() ? "Options" : *section) + ":\n";
        }
        std::string left = "  ";
        for (const std::string& name : entry->dashed)
            left += (name == entry->dashed.front() ? "" : ", ") + name;
        if (entry->dashed.empty())
            left += entry->metavar;
        else if (!entry->metavar.empty())
            left += " " + entry->metavar;
        std::string right = entry->help + entry->choices_help();
        const std::string usual = entry->default_text;
        if (entry->is_flag() && usual == "true")
            right += " (on; off: --no-" + entry->name + ")";
        else if (!usual.empty() && !entry->is_flag())
            right += " (" + usual + ")";
        constexpr size_t INDENT = 28;
        left += left.size() + 2 > INDENT ? "\n" + std::string(INDENT, ' ')
                                         : std::string(INDENT - left.size(), ' ');
        text += left + wrap(right, INDENT, 100) + "\n";
    }
    if (!epilog_text.empty()) text += "\n" + epilog_text + "\n";
    return text;
}

std::string Options::to_toml() const {
    std::vector<std::string>
        sections;  // the common ones first: keys without a section must come before any section
    for (const OptionEntry* entry : state_->in_force()) {
        const std::string& s = entry->section;
        if (s != "Common" && !s.empty() && std::find(sections.begin(), sections.end(), s) == sections.end())
            sections.push_back(s);
    }
    sections.insert(sections.begin(), "");
    std::string text = "# " + state_->name + (chosen().empty() ? "" : " " + chosen()) + "\n";
    for (const std::string& section : sections) {
        if (!section.empty()) {
            std::string key =
                section.substr(0, section.find_first_of("(:"));  // "Input (none: ...)" is [input]
            while (key.ends_with(' ')) key.pop_back();
            for (char& c : key) c = isalnum(static_cast<unsigned char>(c)) ? char(tolower(c)) : '_';
            text += "\n[" + key + "]\n";
        }
        for (const OptionEntry* entry : state_->in_force()) {
            if (!entry->in_config || (entry->section == "Common" ? "" : entry->section) != section) continue;
            const std::string value = entry->value_text(true);
            const std::string line = underscores(entry->name) + " = " + value;
            // An empty word that is none of the choices stands for "not given".
            const bool unset = value.empty() || (value == "\"\"" && !entry->allowed.empty());
            text += format("%-36s # %s\n", (unset ? "# " + line : line).c_str(),
                           (entry->help + entry->choices_help()).c_str());
        }
    }
    return text;
}

void Options::State::read_config(Faults& faults) {
    std::string text;
    try {
        text = read_text(config);
    } catch (const Error& e) {
        faults.add("--config %s", e.what());
        return;
    }
    std::vector<std::string> syntax;
    const std::vector<TomlItem> items = parse_toml(text, config, syntax);
    constexpr size_t TOLD = 10;  // where the file is no configuration, every line of it is at fault
    for (size_t i = 0; i < std::min(TOLD, syntax.size()); i++) faults.add("%s", syntax[i].c_str());
    if (syntax.size() > TOLD)
        faults.add("%s: %zu more lines are at fault; is it a configuration?", config.c_str(),
                   syntax.size() - TOLD);
    std::map<std::string, int> seen;
    for (const TomlItem& item : items) {
        const std::string key = hyphens(item.key);
        OptionEntry* entry = find(key);
        if (!entry || !entry->in_config) {
            faults.add("%s:%d: unknown key '%s'%s", config.c_str(), item.line, item.key.c_str(),
                       entry ? "; it belongs on the command line" : suggestion(key, "", true).c_str());
            continue;
        }
        if (!seen.emplace(entry->name, item.line).second) {
            faults.add("%s:%d: '%s' is set twice (line %d)", config.c_str(), item.line, item.key.c_str(),
                       seen[entry->name]);
            continue;
        }
        std::string fault = entry->from_toml(item.value, entry->in_file);
        if (fault.empty()) fault = entry->fault(entry->in_file);
        entry->faulty = !fault.empty();
        if (!fault.empty())
            faults.add("%s:%d: %s = %s: expected %s", config.c_str(), item.line, item.key.c_str(),
                       shorten(item.value).c_str(), fault.c_str());
        entry->set = true;
    }
}

void Options::State::read_command_line(const std::vector<std::string>& arguments, Faults& faults) {
    try {
        app.parse(
            std::vector<std::string>(arguments.rbegin(), arguments.rend()));  // CLI11 wants them reversed
    } catch (const CLI::ArgumentMismatch& e) {  // "--prompt: 1 required TEXT missing"
        const std::string what = e.what();
        faults.add("%s: needs a value", what.substr(0, what.find(':')).c_str());
    } catch (const CLI::ParseError& e) {
        faults.add("%s", e.what());
    } catch (const std::exception&) {  // a flag's value that is no boolean
        for (const std::string& word : arguments)
            if (const size_t equals = word.find('='); word.starts_with("--") && equals != word.npos)
                if (const OptionEntry* flag = find(hyphens(word.substr(2, equals - 2)));
                    flag && flag->is_flag())
                    faults.add("%s: expected true or false", word.c_str());
    }
    const std::vector<std::string> unknown = app.remaining(true);
    for (size_t i = 0; i < unknown.size(); i++) {
        const std::string word = unknown[i].substr(0, unknown[i].find('='));
        if (word.size() > 1 && word[0] == '-')
            faults.add("unknown option %s%s", word.c_str(),
                       suggestion(hyphens(word.substr(word.find_first_not_of('-'))), "--", false).c_str());
        else if (i == 0 || unknown[i - 1][0] != '-')  // else it is most likely the unknown option's value
            faults.add("unexpected argument '%s'; %s", word.c_str(), advice(word).c_str());
    }
}

bool Options::parse(const std::vector<std::string>& arguments) {
    State& s = *state_;
    Faults faults;
    if (std::find(arguments.begin(), arguments.end(), "--help") != arguments.end() ||
        std::find(arguments.begin(), arguments.end(), "-h") != arguments.end()) {
        for (const auto& command : s.commands)
            if (arguments[0] == command->state_->name) {
                printf("%s", command->state_->help(s.name + " " + command->state_->name).c_str());
                return false;
            }
        printf("%s", s.help(s.name).c_str());
        return false;
    }
    s.read_command_line(arguments, faults);
    const std::vector<OptionEntry*> entries = s.in_force();
    for (OptionEntry* entry : entries)  // first what says where the rest is
        if (entry->on_command_line &&
            (entry->name == "config" || entry->name == "dump-config" || entry->name == "version"))
            entry->assign(entry->words(entry->arguments));
    for (const OptionEntry* entry : entries)
        if (entry->name == "config" && entry->arguments.size() > 1)
            faults.add("--config %s: is one of %zu files, and one is read; put them into one",
                       entry->arguments[0].c_str(), entry->arguments.size());
    if (s.version) {
        printf("%s %s (%s %s)\n", s.name.c_str(), VERSION, "g++", __VERSION__);
        return false;
    }
    if (!s.config.empty()) s.read_config(faults);
    for (OptionEntry* entry : entries) {
        if (entry->on_command_line) {
            const std::string fault = entry->assign(entry->words(entry->arguments));
            std::string given = entry->arguments.empty() ? "" : entry->arguments.back();
            entry->faulty = entry->faulty || !fault.empty();
            if (!fault.empty())
                faults.add("%s %s: expected %s", entry->shown().c_str(),
                           given.empty() ? "''" : given.substr(0, 80).c_str(), fault.c_str());
            entry->set = true;
        } else if (entry->set && !entry->faulty) {
            entry->assign(entry->in_file);
        }
        if (entry->is_required && !entry->set && s.dump_config.empty())  // else it may come later
            faults.add("%s is missing", entry->shown().c_str());
    }
    if (!s.commands.empty() && !s.chosen()) faults.add("say which command; --help lists them");
    if (s.commands.empty() || s.chosen()) {
        for (const auto& check : s.checks) check(faults);
        if (State* command = s.chosen())
            for (const auto& check : command->checks) check(faults);
    }
    faults.refuse_usage();
    if (s.dump_config.empty()) {
        faults.refuse_others();
        return true;
    }
    if (s.dump_config == "-")
        printf("%s", to_toml().c_str());
    else
        write_file_atomic(s.dump_config, to_toml());
    return false;
}

// ---- run_main

static Exit report(Exit code, const std::string& message) {
    log_status("");
    for (const std::string& line : split(message, '\n'))
        if (!line.empty()) log_error("%s", line.c_str());
    return code;
}

// A standard stream that is closed leaves its number to the next file that is opened: a prompt would be read from a
// model's file, and a log written into a checkpoint. It becomes one with nothing to read, and to which writing fails.
static void open_closed_streams() {
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0) open("/dev/null", O_RDONLY);  // gets the lowest free number, which is fd
}

int run_main(int argc, char** argv, const std::string& summary, Common& common,
             const std::function<void(Options&)>& declare, const std::function<Exit(const Options&)>& run) {
    open_closed_streams();
    Exit code = Exit::Ok;
    try {
        const std::string path = argc > 0 ? argv[0] : "program";
        Options options(path.substr(path.rfind('/') + 1), summary);
        options.check(
            [&](Faults&) { set_quiet(common.quiet); });  // the checks to come may have something to say
        declare(options);
        options.add_common(common);
        if (options.parse({argv + std::min(argc, 1), argv + argc})) {
            common.threads = set_threads(common.threads);
            catch_signals();
            code = run(options);
        }
    } catch (const Error& e) {
        code = report(e.code, e.what());
    } catch (const std::bad_alloc&) {
        code = report(Exit::NoMemory, "out of memory; use a smaller model, batch or token budget");
    } catch (const std::exception& e) {
        code = report(Exit::Runtime, e.what());
    }
    if ((fflush(stdout) != 0 || ferror(stdout)) && code == Exit::Ok)
        code = report(Exit::Runtime, "cannot write to stdout (disk full, or closed)");
    return int(code);
}
