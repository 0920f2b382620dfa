// programs.h -- where the programs under test stand: the folder of $PROGRAMS, which `make test` sets (a sanitizer's build has
// programs of its own), else the current one.
#pragma once
#include <cstdlib>
#include <string>

inline std::string program(const std::string& name) {
    const char* folder = getenv("PROGRAMS");
    return std::string(folder && *folder ? folder : "./") + name;
}
