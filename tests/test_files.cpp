#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>

#include "tests/fault_of.h"
#include "tests/temporary_folder.h"
#include "utils/error.h"
#include "utils/files.h"

namespace fs = std::filesystem;

class Files : public testing::Test {
  protected:
    std::string at(const std::string& name) const { return own.file(name); }
    size_t entries() const {
        return size_t(std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
    }
    const TemporaryFolder own;
    const std::string folder = own.path();
};

TEST_F(Files, WritesAndReads) {
    const std::string content("a\0b\n", 4);
    write_file_atomic(at("x"), content);
    EXPECT_EQ(read_text(at("x")), content);
    EXPECT_EQ(MappedFile(at("x")).view(), content);
    write_file_atomic(at("x"), "new");
    EXPECT_EQ(read_text(at("x")), "new");
    EXPECT_EQ(entries(), 1u);
    write_file_atomic(at("empty"), "");
    EXPECT_EQ(MappedFile(at("empty")).size(), 0u);
    EXPECT_EQ(read_text(at("empty")), "");
}

TEST_F(Files, ReadingFaultsNameThePath) {
    EXPECT_EQ(fault_of(Exit::BadFile, [&] { MappedFile f(at("none")); }),
              at("none") + ": cannot read: No such file or directory");
    EXPECT_EQ(fault_of(Exit::BadFile, [&] { read_text(at("none")); }),
              at("none") + ": cannot read: No such file or directory");
    EXPECT_EQ(fault_of(Exit::BadFile, [&] { MappedFile f(folder); }), folder + ": is a folder, not a file");
    EXPECT_EQ(fault_of(Exit::BadFile, [&] { read_text(folder); }), folder + ": is a folder, not a file");
    ASSERT_EQ(mkfifo(at("pipe").c_str(), 0600), 0);
    EXPECT_EQ(fault_of(Exit::BadFile, [&] { MappedFile f(at("pipe")); }),
              at("pipe") + ": is not a regular file");
}

// As the real thing would fail, and nothing is left behind, not even at the other end of a pipe.
TEST_F(Files, ChecksLeaveNothingBehind) {
    check_writable(at("new"));
    EXPECT_EQ(entries(), 0u);
    write_file_atomic(at("old"), "content");
    check_writable(at("old"));
    check_readable(at("old"));
    EXPECT_EQ(read_text(at("old")), "content");
    check_writable("/dev/null");
    ASSERT_EQ(mkfifo(at("pipe").c_str(), 0600), 0);
    check_writable(at("pipe"));  // opened, it would wait for a reader
    check_readable(at("pipe"));
    EXPECT_EQ(entries(), 2u);
    for (const std::string& path : {at("no/x"), at("old/x"), folder, std::string("/proc/x")})
        EXPECT_NE(fault_of(Exit::Runtime, [&] { check_writable(path); }).find(path), std::string::npos)
            << path;
    for (const std::string& path : {at("none"), folder})
        EXPECT_NE(fault_of(Exit::BadFile, [&] { check_readable(path); }).find(path), std::string::npos)
            << path;
}

TEST_F(Files, TheSamePlaceByAnotherName) {
    make_folders(at("a/b"));
    fs::create_directory_symlink(at("a"), at("link"));
    EXPECT_TRUE(same_place(at("a/b"), at("a/b/")));
    EXPECT_TRUE(same_place(at("a/b"), at("link/../a/./b")));
    EXPECT_TRUE(same_place(at("link/new"), at("a/new")));
    EXPECT_TRUE(same_place("new", "./new"));
    EXPECT_FALSE(same_place(at("a/b"), at("a")));
    EXPECT_FALSE(same_place("", ""));
}

TEST_F(Files, WritingFaultsNameThePath) {
    EXPECT_NE(fault_of(Exit::Runtime, [&] { write_file_atomic(at("no/x"), "a"); }).find(at("no/x")),
              std::string::npos);
    EXPECT_NE(fault_of(Exit::Runtime, [&] { write_file_atomic(folder, "a"); }).find("is a folder"),
              std::string::npos);
    EXPECT_NE(fault_of(Exit::Runtime, [&] { write_file_atomic("/dev/full", "a"); }).find("No space left"),
              std::string::npos);
    EXPECT_NE(fault_of(Exit::Runtime, [&] { write_file_atomic("/proc/x", "a"); }).find("/proc/x"),
              std::string::npos);
}

TEST_F(Files, AFailedWriteLeavesTheOldFile) {
    write_file_atomic(at("x"), "old");
    {
        AtomicFile file(at("x"));
        file.write("half of the new");
    }  // no commit: as when an exception passes
    EXPECT_EQ(read_text(at("x")), "old");
    EXPECT_EQ(entries(), 1u);

    // The disk is full after 100,000 bytes.
    rlimit before;
    getrlimit(RLIMIT_FSIZE, &before);
    const rlimit small = {100000, before.rlim_max};
    const auto old_handler = signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    const std::string fault =
        fault_of(Exit::Runtime, [&] { write_file_atomic(at("x"), std::string(3 << 20, 'b')); });
    setrlimit(RLIMIT_FSIZE, &before);
    signal(SIGXFSZ, old_handler);
    EXPECT_NE(fault, "");
    EXPECT_EQ(read_text(at("x")), "old");
    EXPECT_EQ(entries(), 1u);
}

TEST_F(Files, AKilledWriterLeavesTheOldFile) {
    write_file_atomic(at("x"), "old");
    const pid_t child = fork();
    if (child == 0) {
        AtomicFile file(at("x"));
        file.write(std::string(2 << 20, 'b'));
        kill(getpid(), SIGKILL);
    }
    int status = 0;
    waitpid(child, &status, 0);
    EXPECT_TRUE(WIFSIGNALED(status));
    EXPECT_EQ(read_text(at("x")), "old");
}

TEST_F(Files, StreamsInPieces) {
    std::string expected;
    {
        AtomicFile file(at("big"));
        for (int i = 0; i < 300; i++) {
            const std::string piece(size_t(i * 37 % 20000), char('a' + i % 26));
            file.write(piece);
            expected += piece;
        }
        EXPECT_FALSE(file_exists(at("big")));
        file.commit();
        EXPECT_THROW(file.write("more"), Error);
    }
    EXPECT_EQ(read_text(at("big")), expected);
}

TEST_F(Files, FollowsLinksAndSparesDevices) {
    write_file_atomic(at("real"), "old");
    fs::create_symlink("real", at("link"));
    write_file_atomic(at("link"), "new");
    EXPECT_TRUE(fs::is_symlink(at("link")));
    EXPECT_EQ(read_text(at("real")), "new");
    write_file_atomic("/dev/null", "gone");
    EXPECT_TRUE(fs::is_character_file("/dev/null"));
}

TEST_F(Files, FoldersAppearWhole) {
    {
        AtomicFolder out(at("deep/model"));
        write_file_atomic(out.file("config.json"), "{}");
        fs::create_directory(out.file("sub"));
        write_file_atomic(out.file("sub/x"), "x");
        EXPECT_FALSE(file_exists(at("deep/model")));
        out.commit();
    }
    EXPECT_EQ(read_text(at("deep/model/config.json")), "{}");
    EXPECT_EQ(read_text(at("deep/model/sub/x")), "x");
    {
        AtomicFolder out(at("deep/other"));
        write_file_atomic(out.file("x"), "x");
    }  // no commit
    EXPECT_EQ(size_t(std::distance(fs::directory_iterator(at("deep")), fs::directory_iterator())), 1u);
}

TEST_F(Files, FoldersInTheWay) {
    fs::create_directory(at("empty"));
    AtomicFolder(at("empty/")).commit();
    EXPECT_TRUE(folder_exists(at("empty")));

    fs::create_directory(at("full"));
    write_file_atomic(at("full/old"), "x");
    EXPECT_NE(fault_of(Exit::Runtime, [&] { AtomicFolder out(at("full")); }).find("not empty"),
              std::string::npos);
    EXPECT_TRUE(file_exists(at("full/old")));
    {
        AtomicFolder out(at("full"), true);
        write_file_atomic(out.file("new"), "y");
        EXPECT_TRUE(file_exists(at("full/old")));
        out.commit();
    }
    EXPECT_FALSE(file_exists(at("full/old")));
    EXPECT_EQ(read_text(at("full/new")), "y");

    write_file_atomic(at("file"), "x");
    EXPECT_NE(fault_of(Exit::Runtime, [&] { AtomicFolder out(at("file"), true); }).find("is a file"),
              std::string::npos);
    EXPECT_EQ(entries(), 3u);
}

TEST_F(Files, OfALinkToAFolderItsTargetIsMade) {
    fs::create_directory(at("real"));
    fs::create_symlink("real", at("link"));
    for (const std::string text : {"first", "second"}) {  // into an empty folder, and in place of it
        AtomicFolder out(at("link"), true);
        write_file_atomic(out.file("x"), text);
        out.commit();
        EXPECT_TRUE(fs::is_symlink(at("link")));
        EXPECT_EQ(read_text(at("real/x")), text);
    }
    fs::create_symlink("nowhere", at("dangling"));
    EXPECT_NE(fault_of(Exit::Runtime, [&] { AtomicFolder out(at("dangling")); }).find("is a link to what"),
              std::string::npos);
}

// A folder that nothing can be renamed over: a mount point, or as here the one we stand in.
TEST_F(Files, AFolderThatCannotBeReplacedIsFilled) {
    fs::create_directory(at("here"));
    const fs::path before = fs::current_path();
    fs::current_path(at("here"));
    for (const char* path : {".", "../here"}) {
        AtomicFolder out(path, true);
        write_file_atomic(out.file("config.json"), "{}");
        fs::create_directory(out.file("sub"));
        write_file_atomic(out.file("sub/x"), "x");
        EXPECT_FALSE(file_exists("config.json"));
        out.commit();
        EXPECT_EQ(read_text("config.json") + read_text("sub/x"), "{}x");
        EXPECT_EQ(std::distance(fs::directory_iterator("."), fs::directory_iterator()), 2);
        EXPECT_NE(fault_of(Exit::Runtime, [&] { AtomicFolder full(path, true); }).find("cannot be replaced"),
                  std::string::npos);
        fs::remove("config.json");
        fs::remove_all("sub");
    }
    {
        AtomicFolder out(".");
        write_file_atomic(out.file("x"), "x");
    }  // no commit
    EXPECT_TRUE(fs::is_empty("."));
    fs::current_path(before);
}
