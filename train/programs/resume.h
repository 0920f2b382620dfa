// resume.h -- `--resume RUN` takes the options of the run it goes on with: they are read from
// RUN/config.toml.
#pragma once
#include <string>
#include <vector>

// The program's arguments, with `--config RUN/config.toml` put in front where they name a run to resume and
// no --config, and it is one of `program`; or with `--config default_config` (beside the program) where there is none of --config, --resume, --replay and --model.
// What else is on the command line still beats the file.
class ResumedArguments {
  public:
    ResumedArguments(int argc, char** argv, const std::string& program,
                     const std::string& default_config = "");
    int count() const { return int(values_.size()) - 1; }
    char** values() { return values_.data(); }  // ends with a null

  private:
    std::vector<std::string> storage_;
    std::vector<char*> values_;
};
