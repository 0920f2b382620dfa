// temporary_folder.h -- folders for files of tests, of this process alone, gone afterwards.
#pragma once
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "utils/error.h"

class TemporaryFolder {
  public:
    // In memory where that is possible: syncing small files to a disk is most of the time otherwise. But often nothing may be
    // executed there.
    explicit TemporaryFolder(bool for_programs = false) {
        const std::filesystem::path shm = "/dev/shm";
        const bool in_memory = !for_programs && access(shm.c_str(), W_OK) == 0;
        std::string name =
            ((in_memory ? shm : std::filesystem::temp_directory_path()) / "test-XXXXXX").string();
        CHECK(mkdtemp(name.data()), "cannot make a temporary folder");
        path_ = name;
    }
    ~TemporaryFolder() {
        std::error_code error;
        std::filesystem::remove_all(path_, error);
    }
    TemporaryFolder(const TemporaryFolder&) = delete;
    TemporaryFolder& operator=(const TemporaryFolder&) = delete;
    const std::string& path() const { return path_; }
    std::string file(const std::string& name) const { return path_ + "/" + name; }

  private:
    std::string path_;
};

// A file or folder of this name in a folder that all tests of this process share: what a test finds there may be what the one
// before it wrote.
inline std::string temporary(const std::string& name) {
    static const TemporaryFolder folder;
    return folder.file(name);
}

// The same with nothing in its place.
inline std::string fresh(const std::string& name) {
    const std::string path = temporary(name);
    std::filesystem::remove_all(path);
    return path;
}
