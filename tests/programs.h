// programs.h -- the programs under test. They stand in the folder of $PROGRAMS, which `make test` sets (a sanitizer's build has
// programs of its own), else in the current one.
#pragma once
#include <sys/wait.h>

#include <cstdlib>
#include <sstream>
#include <string>
#include <vector>

#include "tests/temporary_folder.h"
#include "utils/files.h"
#include "utils/json.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool SANITIZED = true;
#else
constexpr bool SANITIZED = false;
#endif

inline std::string program(const std::string& name) {
    const char* folder = getenv("PROGRAMS");
    return std::string(folder && *folder ? folder : "./") + name;
}

struct Outcome {
    int code;  // -1: it was ended by a signal
    std::string out, err;
};

// A command as it is typed, with `input` on its standard input.
inline Outcome run_command(const std::string& command, const std::string& input = "") {
    const TemporaryFolder folder;
    const std::string in = folder.file("in"), out = folder.file("out"), err = folder.file("err");
    write_file_atomic(in, input);
    const int status = system(("{ " + command + "\n} <" + in + " >" + out + " 2>" + err).c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, read_text(out), read_text(err)};
}

inline std::vector<Json> json_lines(const std::string& text) {
    std::vector<Json> all;
    std::istringstream in(text);
    for (std::string line; std::getline(in, line);) all.push_back(Json::parse(line));
    return all;
}
