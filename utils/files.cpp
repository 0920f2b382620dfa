#include "utils/files.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <utility>
#include <vector>

#include "utils/error.h"

namespace fs = std::filesystem;

namespace {
struct Descriptor {
    int fd;
    ~Descriptor() {
        if (fd >= 0) close(fd);
    }
};

[[noreturn]] void read_fault(const std::string& path, int error) {
    fail(Exit::BadFile, "%s: cannot read: %s", path.c_str(), strerror(error));
}

[[noreturn]] void write_fault(const std::string& path, int error) {
    const char* remedy = error == ENOSPC || error == EDQUOT    ? " (free some space, or write elsewhere)"
                         : error == EROFS || error == EACCES   ? " (choose a folder you may write to)"
                         : error == ENOENT || error == ENOTDIR ? " (choose a folder that is there)"
                                                               : "";
    fail(Exit::Runtime, "%s: cannot write: %s%s", path.c_str(), strerror(error), remedy);
}

std::string folder_of(const std::string& path) {
    const fs::path parent = fs::path(path).parent_path();
    return parent.empty() ? "." : parent.string();
}

std::string temporary_name(const std::string& path) {
    static std::atomic<int> counter = 0;
    return format("%s/.%s.tmp-%d-%d", folder_of(path).c_str(), fs::path(path).filename().c_str(),
                  int(getpid()), counter++);
}

// Makes what has been written or renamed durable. Some file systems cannot sync folders and say EINVAL.
void sync_path(const std::string& path) {
    const Descriptor d{open(path.c_str(), O_RDONLY | O_CLOEXEC)};
    if (d.fd < 0 || (fsync(d.fd) != 0 && errno != EINVAL && errno != ENOTSUP)) write_fault(path, errno);
}

std::string without_trailing_slash(std::string path) {
    while (path.size() > 1 && path.back() == '/') path.pop_back();
    return path;
}
}  // namespace

// ---- reading

MappedFile::MappedFile(const std::string& path) {
    const Descriptor d{
        open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};  // a pipe without a writer must not hang
    struct stat info;
    if (d.fd < 0 || fstat(d.fd, &info) != 0) read_fault(path, errno);
    if (S_ISDIR(info.st_mode)) fail(Exit::BadFile, "%s: is a folder, not a file", path.c_str());
    if (!S_ISREG(info.st_mode)) fail(Exit::BadFile, "%s: is not a regular file", path.c_str());
    size_ = size_t(info.st_size);
    if (size_ == 0) return;
    void* mapped = mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, d.fd, 0);
    if (mapped == MAP_FAILED) read_fault(path, errno);
    data_ = static_cast<const char*>(mapped);
}

MappedFile::~MappedFile() {
    if (size_) munmap(const_cast<char*>(data_), size_);
}

std::string read_text(const std::string& path) {
    const Descriptor d{open(path.c_str(), O_RDONLY | O_CLOEXEC)};
    struct stat info;
    if (d.fd < 0 || fstat(d.fd, &info) != 0) read_fault(path, errno);
    if (S_ISDIR(info.st_mode)) fail(Exit::BadFile, "%s: is a folder, not a file", path.c_str());
    std::string text;
    if (S_ISREG(info.st_mode)) text.reserve(size_t(info.st_size));
    char chunk[1 << 16];
    for (;;) {
        const ssize_t n = read(d.fd, chunk, sizeof chunk);
        if (n == 0) return text;
        if (n > 0)
            text.append(chunk, size_t(n));
        else if (errno != EINTR)
            read_fault(path, errno);
    }
}

void check_readable(const std::string& path) {
    if (access(path.c_str(), R_OK) != 0) read_fault(path, errno);
    if (folder_exists(path)) fail(Exit::BadFile, "%s: is a folder, not a file", path.c_str());
}

bool file_exists(const std::string& path) {
    struct stat info;
    return stat(path.c_str(), &info) == 0;
}

bool folder_exists(const std::string& path) {
    struct stat info;
    return stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

std::string beside_program(const std::string& name) {
    char self[4096];
    const ssize_t n = readlink("/proc/self/exe", self, sizeof self);
    const std::string program = n > 0 ? std::string(self, size_t(n)) : "";
    const std::string beside = program.substr(0, program.rfind('/') + 1) + name;
    return file_exists(beside) ? beside : name;
}

void make_folders(const std::string& path) {
    std::error_code error;
    fs::create_directories(path, error);
    if (error) write_fault(path, error.value());
    if (!folder_exists(path)) write_fault(path, ENOTDIR);
}

// ---- writing a file

AtomicFile::AtomicFile(const std::string& path) : path_(path) {
    struct stat info;
    if (stat(path.c_str(), &info) == 0) {
        if (S_ISDIR(info.st_mode)) fail(Exit::Runtime, "%s: is a folder, not a file", path.c_str());
        if (!S_ISREG(info.st_mode)) {  // renaming a file over /dev/stdout would be a fine mess
            fd_ = open(path.c_str(), O_WRONLY | O_CLOEXEC);
            if (fd_ < 0) write_fault(path, errno);
            return;
        }
        char* real = realpath(path.c_str(), nullptr);
        if (!real) write_fault(path, errno);
        path_ = real;
        free(real);
    }
    temporary_ = temporary_name(path_);
    fd_ = open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd_ < 0) {
        const int error = errno;
        temporary_.clear();
        write_fault(path_, error);
    }
}

AtomicFile::~AtomicFile() {
    if (fd_ >= 0) close(fd_);
    if (!temporary_.empty()) unlink(temporary_.c_str());
}

void AtomicFile::flush(const char* data, size_t bytes) {
    while (bytes > 0) {
        const ssize_t n = ::write(fd_, data, bytes);
        if (n < 0 && errno != EINTR) write_fault(path_, errno);
        if (n > 0) {
            data += n;
            bytes -= size_t(n);
        }
    }
}

void AtomicFile::write(const void* data, size_t bytes) {
    constexpr size_t BUFFER = 1 << 20;
    CHECK(fd_ >= 0, "%s written to after commit()", path_.c_str());
    if (buffer_.size() + bytes < BUFFER) {
        buffer_.append(static_cast<const char*>(data), bytes);
        return;
    }
    flush(buffer_.data(), buffer_.size());
    buffer_.clear();
    flush(static_cast<const char*>(data), bytes);
}

void AtomicFile::commit() {
    CHECK(fd_ >= 0, "%s committed twice", path_.c_str());
    flush(buffer_.data(), buffer_.size());
    buffer_.clear();
    if (!temporary_.empty() && fsync(fd_) != 0 && errno != EINVAL) write_fault(path_, errno);
    if (close(std::exchange(fd_, -1)) != 0) write_fault(path_, errno);
    if (temporary_.empty()) return;
    if (rename(temporary_.c_str(), path_.c_str()) != 0) write_fault(path_, errno);
    temporary_.clear();
    sync_path(folder_of(path_));
}

void check_writable(const std::string& path) {
    struct stat info;
    if (stat(path.c_str(), &info) == 0 && !S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode)) {
        // Opened and closed, a pipe would be at its end for whoever reads it.
        if (access(path.c_str(), W_OK) != 0) write_fault(path, errno);
    } else {
        const AtomicFile probe(path);
    }
}

bool same_place(const std::string& a, const std::string& b) {
    const auto place = [](const std::string& path) {
        std::error_code error;
        const fs::path full = fs::absolute(without_trailing_slash(path), error);
        const fs::path real = fs::weakly_canonical(full, error);
        return error ? full.lexically_normal() : real;
    };
    return !a.empty() && !b.empty() && place(a) == place(b);
}

void write_file_atomic(const std::string& path, std::string_view content) {
    AtomicFile file(path);
    file.write(content);
    file.commit();
}

// ---- writing a folder

// A folder that another cannot be renamed over: a file system is mounted there, or someone stands in it.
static bool cannot_be_replaced(const std::string& path) {
    struct statx info;
    std::error_code error;
    return (statx(AT_FDCWD, path.c_str(), 0, STATX_BASIC_STATS, &info) == 0 &&
            (info.stx_attributes & STATX_ATTR_MOUNT_ROOT)) ||
           fs::equivalent(path, ".", error);
}

AtomicFolder::AtomicFolder(const std::string& path, bool replace)
    : path_(without_trailing_slash(path)), replace_(replace) {
    std::error_code error;
    if (fs::is_symlink(path_) && !file_exists(path_))
        fail(Exit::Runtime, "%s: is a link to what is not there; choose another folder", path_.c_str());
    if (file_exists(path_)) {
        if (!folder_exists(path_)) fail(Exit::Runtime, "%s: is a file; choose another folder", path_.c_str());
        const bool empty = fs::is_empty(path_, error);
        if (!replace_ && !empty)
            fail(Exit::Runtime, "%s: exists and is not empty; remove it or choose another folder",
                 path_.c_str());
        in_place_ = cannot_be_replaced(path_);
        if (in_place_ && !empty)
            fail(
                Exit::Runtime,
                "%s: is a mount point or the working directory, which cannot be replaced; empty it or choose "
                "another folder",
                path_.c_str());
        const fs::path real = fs::canonical(path_, error);
        if (!error) path_ = real;
    }
    make_folders(folder_of(path_));
    const std::string name = temporary_name(in_place_ ? path_ + "/new" : path_);
    if (mkdir(name.c_str(), 0777) != 0) write_fault(path_, errno);
    temporary_ = name;
}

AtomicFolder::~AtomicFolder() {
    std::error_code error;
    if (!done_) fs::remove_all(temporary_, error);
}

// From inside path_. What a folder is known by comes last.
void AtomicFolder::move_in() {
    std::vector<std::string> names;
    for (const fs::directory_entry& entry : fs::directory_iterator(temporary_))
        names.push_back(entry.path().filename());
    std::stable_partition(names.begin(), names.end(), [](const auto& n) { return n != "config.json"; });
    for (const std::string& name : names)
        if (rename(file(name).c_str(), (path_ + "/" + name).c_str()) != 0) write_fault(path_, errno);
    if (rmdir(temporary_.c_str()) != 0) write_fault(path_, errno);
    done_ = true;
}

void AtomicFolder::commit() {
    CHECK(!done_, "%s committed twice", path_.c_str());
    for (const fs::directory_entry& entry : fs::recursive_directory_iterator(temporary_))
        if (entry.is_regular_file() || entry.is_directory()) sync_path(entry.path());
    sync_path(temporary_);
    if (in_place_) {
        move_in();
    } else if (rename(temporary_.c_str(), path_.c_str()) == 0) {  // also over an empty folder
        done_ = true;
    } else if (replace_ && (errno == ENOTEMPTY || errno == EEXIST)) {
        std::error_code error;
        if (renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, path_.c_str(), RENAME_EXCHANGE) != 0) {
            // A file system without exchange: the old folder steps aside first.
            const std::string aside = temporary_name(path_);
            if (rename(path_.c_str(), aside.c_str()) != 0) write_fault(path_, errno);
            if (rename(temporary_.c_str(), path_.c_str()) != 0) {
                const int reason = errno;
                rename(aside.c_str(), path_.c_str());
                write_fault(path_, reason);
            }
            temporary_ = aside;
        }
        done_ = true;
        fs::remove_all(temporary_, error);  // the old one, by now
    } else {
        write_fault(path_, errno);
    }
    sync_path(folder_of(path_));
}
