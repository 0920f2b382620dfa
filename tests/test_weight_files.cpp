// Sharded folders: the index is as untrusted as the shards.
#include <gtest/gtest.h>

#include "tests/fault_of.h"
#include "tests/temporary_folder.h"
#include "utils/error.h"
#include "utils/files.h"
#include "utils/json.h"
#include "weights_tools/weight_files.h"

namespace {
constexpr const char* FIRST = "model-00001-of-00002.safetensors";
constexpr const char* SECOND = "model-00002-of-00002.safetensors";

// A folder with two sound shards: a and b in the first, c in the second.
class Sharded : public TemporaryFolder {
  public:
    Sharded() {
        write_shard(FIRST, {"a", "b"});
        write_shard(SECOND, {"c"});
        write_index({{"a", FIRST}, {"b", FIRST}, {"c", SECOND}});
    }
    void write_shard(const std::string& name, const std::vector<std::string>& tensors) {
        float x[3] = {1, 2, 3};
        std::vector<Save> saves;
        for (const std::string& t : tensors) saves.push_back({t, tensor(x, 1, 3), true, DType::F32});
        save_tensors(file(name), saves);
    }
    void write_index(const Json& weight_map, const Json& metadata = {{"total_size", 36}}) {
        write_text(dump(Json{{"metadata", metadata}, {"weight_map", weight_map}}));
    }
    void write_text(const std::string& index) {
        write_file_atomic(file("model.safetensors.index.json"), index);
    }

    std::string fault() const {
        try {
            const WeightFiles files(path());
        } catch (const Error& e) {
            EXPECT_EQ(e.code, Exit::BadFile) << e.what();
            const std::string text = e.what();
            EXPECT_EQ(text.find(path()), 0u) << text;
            return text;
        }
        return "";
    }
};

#define EXPECT_HAS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)
}  // namespace

TEST(WeightFiles, Shards) {
    const Sharded folder;
    const WeightFiles files(folder.path());
    EXPECT_EQ(files.n_files(), 2u);
    EXPECT_EQ(files.tensors().size(), 3u);
    EXPECT_EQ(files.bytes(), 36u);
    EXPECT_EQ(files.find("c")->file->path(), folder.file(SECOND));
    EXPECT_TRUE(files.notices().empty()) << files.notices()[0];
}

TEST(WeightFiles, OneFileNeedsNoIndexAndWinsOverIt) {
    Sharded folder;
    folder.write_shard("model.safetensors", {"only"});
    EXPECT_EQ(WeightFiles(folder.path()).tensors().size(), 1u);
    EXPECT_EQ(WeightFiles(folder.file(SECOND)).tensors().size(), 1u);
}

TEST(WeightFiles, FoldersWithoutWeights) {
    const TemporaryFolder folder;
    const auto fault = [](const std::string& path) -> std::string {
        return fault_of(Exit::BadFile, [&] { const WeightFiles files(path); });
    };
    EXPECT_HAS(fault(folder.path()), "has neither model.safetensors nor model.safetensors.index.json");
    EXPECT_HAS(fault(folder.file("nowhere")), "No such file");
    write_file_atomic(folder.file("pytorch_model.bin"), "PK");
    EXPECT_HAS(fault(folder.path()), "has only pytorch_model.bin; save it as safetensors");
    std::filesystem::create_symlink("model.safetensors", folder.file("model.safetensors"));
    EXPECT_HAS(fault(folder.path()), "symbolic links");
    std::filesystem::remove(folder.file("model.safetensors"));
    std::filesystem::create_symlink("elsewhere",
                                    folder.file("model.safetensors"));  // a pruned download cache
    EXPECT_HAS(fault(folder.path()), "No such file");
    std::filesystem::remove(folder.file("model.safetensors"));
    std::filesystem::create_symlink("model.safetensors.index.json",
                                    folder.file("model.safetensors.index.json"));
    EXPECT_HAS(fault(folder.path()), "symbolic links");
}

TEST(WeightFiles, HostileIndexFiles) {
    Sharded folder;
    for (const char* text :
         {"", "{", "[]", "null", "{}", R"({"weight_map": null})", R"({"weight_map": []})",
          R"({"weight_map": "model.safetensors"})", R"({"weight_map": {}})", "\xff\xfe{}",
          R"({"weight_map": {"a": "x", "a": "x"}})", "version https://git-lfs.github.com/spec/v1\n"}) {
        folder.write_text(text);
        EXPECT_HAS(folder.fault(), "model.safetensors.index.json") << text;
    }
    folder.write_text(std::string(100'000, '[') + std::string(100'000, ']'));
    EXPECT_HAS(folder.fault(), "model.safetensors.index.json");
}

TEST(WeightFiles, ShardsAreFilesBesideTheIndex) {
    Sharded folder;
    for (const Json& shard :
         {Json("../outside.safetensors"), Json("/etc/passwd"), Json("sub/shard.safetensors"), Json(".."),
          Json("."), Json(""), Json(".hidden"), Json(std::string("a\0b", 3)), Json(std::string(300, 'x')),
          Json(7), Json(nullptr), Json::array({FIRST})}) {
        folder.write_index({{"a", shard}});
        EXPECT_HAS(folder.fault(), "which is not the name of a file beside the index") << shard;
    }
}

TEST(WeightFiles, WhatIndexAndShardsDisagreeAbout) {
    Sharded folder;
    folder.write_index(
        {{"a", FIRST}, {"b", FIRST}, {"c", SECOND}, {"d", "model-00003-of-00003.safetensors"}});
    EXPECT_HAS(folder.fault(), "model-00003-of-00003.safetensors: cannot read: No such file");
    folder.write_index({{"a", FIRST}, {"b", FIRST}, {"c", SECOND}, {"d", SECOND}});
    EXPECT_HAS(folder.fault(), "tensor 'd' is not in " + std::string(SECOND));
    folder.write_index({{"a", FIRST}, {"c", SECOND}});
    EXPECT_HAS(folder.fault(), "tensor 'b' is in " + std::string(FIRST) + ", but not in the index");
    folder.write_index({{"a", FIRST}, {"b", SECOND}, {"c", SECOND}});
    EXPECT_HAS(folder.fault(), "tensor 'b' is in " + std::string(FIRST) + ", the index says " + SECOND);
    folder.write_index({{"a", FIRST}, {"b", FIRST}, {"c", SECOND}});
    folder.write_shard(SECOND, {"a", "c"});
    EXPECT_HAS(folder.fault(), "tensor 'a' is in two files");
}

TEST(WeightFiles, AllFaultsTogether) {
    Sharded folder;
    folder.write_index({{"a", FIRST}, {"x", FIRST}, {"c", SECOND}});
    write_file_atomic(folder.file(SECOND), "cut");
    const std::string text = folder.fault();
    EXPECT_HAS(text, "3 faults");
    EXPECT_HAS(text, "tensor 'b' is in");
    EXPECT_HAS(text, "tensor 'x' is not in");
    EXPECT_HAS(text, std::string(SECOND) + ": has 3 bytes");
}

TEST(WeightFiles, ShardsThatAreNoFiles) {
    Sharded folder;
    std::filesystem::remove(folder.file(SECOND));
    std::filesystem::create_directory(folder.file(SECOND));
    EXPECT_HAS(folder.fault(), "is not a regular file");
    std::filesystem::remove(folder.file(SECOND));
    std::filesystem::create_symlink(SECOND, folder.file(SECOND));
    EXPECT_HAS(folder.fault(), "symbolic links");
}

TEST(WeightFiles, AbsurdlyManyShards) {
    Sharded folder;
    Json::object_t map;
    for (int i = 0; i < 10'001; i++)
        map.emplace_back("t" + std::to_string(i), std::to_string(i) + ".safetensors");
    folder.write_index(Json(std::move(map)));
    EXPECT_HAS(folder.fault(), "names 10001 files, over 10000");
}

TEST(WeightFiles, WrongTotalsAreToldNotRefused) {
    Sharded folder;
    const Json map = {{"a", FIRST}, {"b", FIRST}, {"c", SECOND}};
    for (const Json& metadata :
         {Json{{"total_size", 35}}, Json{{"total_size", "36"}}, Json::object(), Json(nullptr)}) {
        folder.write_index(map, metadata);
        const WeightFiles files(folder.path());
        ASSERT_EQ(files.notices().size(), 1u) << metadata;
        EXPECT_HAS(files.notices()[0], "total_size");
    }
}
