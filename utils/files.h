// files.h -- reading whole files, and writing files and folders so that nobody ever sees half of one.
//
// What is written goes to a temporary name in the same folder, is synced, and is renamed over the old one: a
// crash or a full disk leaves the old file as it was. Faults throw Error naming the path: BadFile when
// reading, Runtime when writing.
#pragma once
#include <cstddef>
#include <string>
#include <string_view>

// A regular file's bytes, mapped read-only. An empty file is an empty view. Folders, pipes and devices are refused.
class MappedFile {
  public:
    explicit MappedFile(const std::string& path);
    ~MappedFile();
    MappedFile(const MappedFile&) = delete;
    MappedFile& operator=(const MappedFile&) = delete;
    const char* data() const { return data_; }
    size_t size() const { return size_; }
    std::string_view view() const { return {data_, size_}; }

  private:
    const char* data_ = "";
    size_t size_ = 0;
};

// All of a file, pipes and /dev/stdin included.
std::string read_text(const std::string& path);
// Throws what read_text() would where there is no such file or it may not be read; reads nothing.
void check_readable(const std::string& path);
bool file_exists(const std::string& path);  // anything of that name
bool folder_exists(const std::string& path);
// `name` beside the running program if it exists there, else in the working directory.
std::string beside_program(const std::string& name);
void make_folders(const std::string& path);  // and its parents; fine where it is there already

// Throws what writing the file would throw, if it cannot be written; leaves nothing behind. For checks before the work
// whose result the file is to hold.
void check_writable(const std::string& path);
// Whether two paths name the same file or folder, be it there or not. "" is none.
bool same_place(const std::string& a, const std::string& b);
void write_file_atomic(const std::string& path, std::string_view content);

// The same, piece by piece, for files too big to build in memory. Without commit() (an exception) nothing
// remains. Devices and pipes (/dev/stdout) are written straight through; a symbolic link's target is
// replaced, not the link.
class AtomicFile {
  public:
    explicit AtomicFile(const std::string& path);
    ~AtomicFile();
    AtomicFile(const AtomicFile&) = delete;
    AtomicFile& operator=(const AtomicFile&) = delete;
    void write(const void* data, size_t bytes);
    void write(std::string_view text) { write(text.data(), text.size()); }
    void commit();

  private:
    void flush(const char* data, size_t bytes);
    std::string path_, temporary_;  // temporary_ is empty for devices
    std::string buffer_;
    int fd_ = -1;
};

// A folder built under a temporary name beside its own, synced and renamed into place by commit(); without
// commit() it is removed. An existing non-empty folder is refused, or with `replace` exchanged and then
// deleted. Of a symbolic link its target is meant. What cannot be renamed over, a mount point or the working
// directory, is built in itself and has to be empty.
class AtomicFolder {
  public:
    explicit AtomicFolder(const std::string& path, bool replace = false);
    ~AtomicFolder();
    AtomicFolder(const AtomicFolder&) = delete;
    AtomicFolder& operator=(const AtomicFolder&) = delete;
    const std::string& path() const { return temporary_; }  // write your files in here
    std::string file(const std::string& name) const { return temporary_ + "/" + name; }
    void commit();

  private:
    void move_in();
    std::string path_, temporary_;
    bool replace_, in_place_ = false, done_ = false;
};
