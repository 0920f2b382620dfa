// option_entry.h -- one option of a program: its names, its variable, and the way from text to it and back.
#pragma once
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "utils/cli.h"
#include "utils/toml.h"

struct OptionEntry : Option {
    std::string section, help, metavar;
    std::string name;                 // without dashes: "top-k"
    std::vector<std::string> dashed;  // "--top-k", "-k"; empty for a positional
    Options::Target target;
    std::string default_text;
    std::optional<std::pair<double, double>> limits;
    std::vector<std::string> allowed;  // values of a string; empty: any
    bool is_required = false, in_config = true;
    std::vector<std::string> arguments, in_file;  // as the command line gave them, and the words of the file
    bool on_command_line = false;
    bool set = false;     // by command line or file
    bool faulty = false;  // by what it was to be set to

    Option& range(double low, double high) override;
    Option& choices(std::vector<std::string> values) override;
    Option& required() override;
    Option& not_in_config() override;

    bool is_flag() const { return std::holds_alternative<bool*>(target); }
    bool has_name(const std::string& key) const;  // "top-k", or an alias
    // Of a key that is no option's: the name or alias that it misspells, in case or hyphens ("Top-K": top-k), or in a
    // letter for every six behind the first ("temprature"; a short word that differs is another word); "": none.
    std::string misspelt(const std::string& key) const;
    std::string choices_help() const;  // ": a, b, c"; "" where the help names them, or anything goes
    std::string shown() const { return dashed.empty() ? metavar : "--" + name; }

    // Faults are returned as what was expected instead ("an integer from 1 to 64"); "" is none.
    std::string fault(const std::vector<std::string>& words) const;
    std::string assign(const std::vector<std::string>& words);  // the same, and sets the variable
    std::string from_toml(const TomlValue& value,
                          std::vector<std::string>& words) const;  // its words, if the type is right

    // Of what was typed: lists of numbers are split at commas.
    std::vector<std::string> words(const std::vector<std::string>& typed) const;
    std::string value_text(bool as_toml) const;  // the current value; "" where it is not set, or no choice
};

std::string shorten(const TomlValue& value);  // as it was written, more or less, for messages
