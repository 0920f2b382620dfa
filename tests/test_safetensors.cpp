#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>

#include <cmath>
#include <cstring>

#include "kernels/cuda_ops.h"
#include "tests/fault_of.h"
#include "tests/temporary_folder.h"
#include "utils/error.h"
#include "utils/files.h"
#include "utils/json.h"
#include "utils/signals.h"
#include "weights_tools/safetensors.h"

namespace {
// A file with this header text and this data, whatever they are.
std::string file_of(const std::string& header, const std::string& data) {
    const uint64_t length = header.size();
    return std::string(reinterpret_cast<const char*>(&length), 8) + header + data;
}
std::string file_of(uint64_t length, const std::string& rest) {
    return std::string(reinterpret_cast<const char*>(&length), 8) + rest;
}

// What is wrong with a file of these bytes; "" where it is sound. The message is one line and names the file.
std::string fault(const std::string& bytes) {
    const TemporaryFolder folder;
    const std::string path = folder.file("m.safetensors");
    write_file_atomic(path, bytes);
    try {
        const SafetensorsFile file(path);
    } catch (const Error& e) {
        EXPECT_EQ(e.code, Exit::BadFile) << e.what();
        const std::string text = e.what();
        EXPECT_EQ(text.find(path), 0u) << text;
        EXPECT_EQ(text.find('\n'), std::string::npos) << text;
        EXPECT_LT(text.size(), 500u) << text.substr(0, 500);
        return text.substr(path.size());
    }
    return "";
}

#define EXPECT_HAS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

// One tensor 'x' with these fields.
std::string entry(const std::string& dtype, const std::string& shape, const std::string& offsets) {
    return R"({"x":{"dtype":)" + dtype + R"(,"shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}";
}
const std::string EIGHT(8, '\1');
}  // namespace

// ---- what must be refused: length and framing

TEST(Safetensors, HostileLengths) {
    EXPECT_HAS(fault(""), "is empty");
    EXPECT_HAS(fault("1234567"), "has 7 bytes");
    EXPECT_HAS(fault(file_of(1ull << 63, "{}")), "header length is 9223372036854775808");
    EXPECT_HAS(fault(file_of(UINT64_MAX, "{}")), "header length is 18446744073709551615");
    EXPECT_HAS(fault(file_of(100'000'001, "{}")), "header length is 100000001");
    EXPECT_HAS(fault(file_of(100'000'000, "{}")),
               "is truncated: its header needs 100000000 bytes, 2 are there");
    EXPECT_HAS(fault(file_of(3, "{}")), "is truncated");
    EXPECT_HAS(fault(file_of(0, "")), "header");
    EXPECT_HAS(fault(file_of(0, "{}")), "header");
    EXPECT_HAS(fault("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"), "git lfs pull");
    EXPECT_HAS(fault("<!DOCTYPE html><html>not found</html>"), "not a safetensors file");
    EXPECT_HAS(fault(std::string("PK\3\4\0\0\0\0", 8) + "pytorch_model.bin"),
               "is truncated");  // a zip archive
}

// ---- what must be refused: the header's JSON

TEST(Safetensors, HostileJson) {
    for (const char* text : {"{", "", "   ", "[]", "null", "7", "\"x\"", "{}x", "{} {}", "{\"a\":1,}",
                             "{'a':1}", "{\"a\":NaN}", "{\"a\":01}", "{\"a\"", "\xef\xbb\xbf{}{"})
        EXPECT_NE(fault(file_of(text, "")), "") << text;
    EXPECT_HAS(fault(file_of("[]", "")), "must be a JSON object");
    EXPECT_NE(fault(file_of("{\"\xff\xfe\":1}", "")), "");                // not UTF-8
    EXPECT_NE(fault(file_of("{\"\xc0\xaf\":1}", "")), "");                // overlong UTF-8
    EXPECT_NE(fault(file_of(R"({"\ud800":{"dtype":"F32"}})", "")), "");   // half a surrogate pair
    EXPECT_NE(fault(file_of(std::string("{\"a\0b\":1}", 9), "")), "");    // a raw NUL
    EXPECT_NE(fault(file_of(std::string("{}\0\0\0\0\0\0", 8), "")), "");  // padded with NUL
    EXPECT_NE(fault(file_of(std::string(100'000, '[') + std::string(100'000, ']'), "")), "");
    EXPECT_NE(fault(file_of(std::string(100'000, '['), "")), "");
    std::string nested;
    for (int i = 0; i < 100'000; i++) nested += "{\"a\":";
    EXPECT_NE(fault(file_of(nested, "")), "");
    EXPECT_HAS(fault(file_of(R"({"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                             R"("x":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
                             EIGHT)),
               "occurs twice");
    EXPECT_HAS(
        fault(file_of(R"({"x":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}})", EIGHT)),
        "occurs twice");
}

// ---- what must be refused: an entry

TEST(Safetensors, HostileEntries) {
    for (const char* value : {"1", "null", "[]", "\"F32\"", "true"})
        EXPECT_HAS(fault(file_of(std::string(R"({"x":)") + value + "}", EIGHT)), "must be an object")
            << value;
    EXPECT_HAS(fault(file_of(R"({"x":{}})", EIGHT)), "tensor 'x': dtype is missing");
    EXPECT_HAS(fault(file_of(R"({"x":{"dtype":"F32","data_offsets":[0,8]}})", EIGHT)), "shape is missing");
    EXPECT_HAS(fault(file_of(R"({"x":{"dtype":"F32","shape":[2]}})", EIGHT)), "data_offsets is missing");
    EXPECT_HAS(fault(file_of(R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"more":1}})", EIGHT)),
               "unknown field \"more\"");
    for (const char* dtype :
         {"\"F64\"", "\"f32\"", "\"float32\"", "\"F8_E4M3\"", "\"U8\"", "\"\"", "32", "null", "[\"F32\"]"})
        EXPECT_HAS(fault(file_of(entry(dtype, "[2]", "[0,8]"), EIGHT)), std::string("dtype is ") + dtype);
    for (const char* shape :
         {"2", "\"2\"", "null", "{}", "[-2]", "[2.0]", "[2e0]", "[\"2\"]", "[[2]]", "[true]",
          "[18446744073709551615]", "[9223372036854775808]", "[99999999999999999999999]", "[null]"})
        EXPECT_HAS(fault(file_of(entry("\"F32\"", shape, "[0,8]"), EIGHT)), "shape is") << shape;
    for (const char* shape :
         {"[2,18446744073709551614]", "[4294967296,4294967296]", "[2,9223372036854775807]",
          "[9223372036854775807,0,9]", "[4611686018427387904]", "[1,2305843009213693952]"})
        EXPECT_NE(fault(file_of(entry("\"F32\"", shape, "[0,8]"), EIGHT)), "") << shape;
    for (const char* offsets : {"8", "null", "[8]", "[]", "[0,4,8]", "[-8,0]", "[0,8.0]", "[\"0\",8]",
                                "[8,0]", "[0,18446744073709551615]", "{\"begin\":0}"})
        EXPECT_HAS(fault(file_of(entry("\"F32\"", "[2]", offsets), EIGHT)), "data_offsets is") << offsets;
    EXPECT_HAS(fault(file_of(entry("\"F32\"", "[3]", "[0,8]"), EIGHT)),
               "needs 12 bytes, data_offsets give 8");
    EXPECT_HAS(fault(file_of(entry("\"BF16\"", "[2]", "[0,8]"), EIGHT)), "needs 4 bytes");
    EXPECT_HAS(fault(file_of(entry("\"F32\"", "[]", "[0,8]"), EIGHT)),
               "needs 4 bytes");  // a scalar is one number
    EXPECT_HAS(fault(file_of(entry("\"F32\"", "[0]", "[0,8]"), EIGHT)), "needs 0 bytes");
}

TEST(Safetensors, HostileNames) {
    const auto named = [](const std::string& name) {
        return file_of("{\"" + name + R"(":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", EIGHT);
    };
    EXPECT_EQ(fault(named("a")), "");
    EXPECT_HAS(fault(named("")), "has no name");
    EXPECT_HAS(fault(named("\\u0000")), "control character");
    EXPECT_HAS(fault(named("a\\u001b[2Jb")), "control character");
    EXPECT_HAS(fault(named("a\\nb")), "control character");
    EXPECT_HAS(fault(named(std::string(1 << 20, 'n'))), "name is 1048576 bytes long");
    EXPECT_EQ(fault(named("../../etc/passwd")), "");  // a name, never a path
}

TEST(Safetensors, HostileMetadata) {
    const auto with = [](const std::string& metadata) {
        return file_of(R"({"__metadata__":)" + metadata + "}", "");
    };
    EXPECT_EQ(fault(with(R"({"format":"pt"})")), "");
    EXPECT_EQ(fault(with("{}")), "");
    for (const char* bad : {"null", "[]", "\"pt\"", "1"})
        EXPECT_HAS(fault(with(bad)), "__metadata__ must be an object");
    for (const char* bad : {"1", "null", "{}", "[\"pt\"]", "true"})
        EXPECT_HAS(fault(with(std::string(R"({"format":)") + bad + "}")), "must be a string");
}

// ---- what must be refused: where the data lies

TEST(Safetensors, HostilePlaces) {
    const auto two = [](const std::string& a, const std::string& b, const std::string& data) {
        return fault(file_of(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":)" + a +
                                 R"(},"b":{"dtype":"F32","shape":[1],"data_offsets":)" + b + "}}",
                             data));
    };
    EXPECT_EQ(two("[0,4]", "[4,8]", EIGHT), "");
    EXPECT_EQ(two("[4,8]", "[0,4]", EIGHT), "");  // in any order
    EXPECT_HAS(two("[0,4]", "[0,4]", EIGHT), "overlaps");
    EXPECT_HAS(two("[0,4]", "[2,6]", EIGHT), "overlaps");
    EXPECT_HAS(two("[0,4]", "[5,9]", EIGHT + "1"), "belong to no tensor");
    EXPECT_HAS(two("[1,5]", "[5,9]", EIGHT + "1"), "belong to no tensor");
    EXPECT_HAS(two("[0,4]", "[4,8]", "1234567"),
               "is truncated: its tensors need 8 bytes of data, 7 are there");
    EXPECT_HAS(two("[0,4]", "[4,8]", ""), "is truncated");
    EXPECT_HAS(two("[0,4]", "[4,8]", EIGHT + "PK\3\4"), "has 4 bytes after its last tensor");
    EXPECT_HAS(two("[0,4]", "[9223372036854775803,9223372036854775807]", EIGHT), "belong to no tensor");
    EXPECT_HAS(fault(file_of("{}", EIGHT)), "has 8 bytes after its last tensor");
    EXPECT_HAS(fault(file_of(entry("\"F32\"", "[536870912,1024]", "[0,2199023255552]"), EIGHT)),
               "is truncated");
}

TEST(Safetensors, HostileFiles) {
    const TemporaryFolder folder;
    const auto open_fault = [&](const std::string& name) -> std::string {
        return fault_of(Exit::BadFile, [&] { const SafetensorsFile file(folder.file(name)); });
    };
    EXPECT_HAS(open_fault("missing"), "No such file");
    EXPECT_HAS(open_fault("."), "not a regular file");
    std::filesystem::create_symlink("loop_b", folder.file("loop_a"));
    std::filesystem::create_symlink("loop_a", folder.file("loop_b"));
    EXPECT_HAS(open_fault("loop_a"), "symbolic links");
    ASSERT_EQ(mkfifo(folder.file("pipe").c_str(), 0600), 0);
    EXPECT_HAS(open_fault("pipe"), "not a regular file");
}

TEST(Safetensors, FileThatShrinksWhileItIsRead) {
    const TemporaryFolder folder;
    std::vector<float> x(1000, 1);
    save_tensors(folder.file("m"), {{"x", tensor(x.data(), 10, 100)}});
    const SafetensorsFile file(folder.file("m"));
    std::filesystem::resize_file(folder.file("m"), 500);
    try {
        load_tensors({{&file.get("x"), tensor(x.data(), 10, 100)}});
        FAIL() << "not noticed";
    } catch (const Error& e) {
        EXPECT_EQ(e.code, Exit::BadFile);
        EXPECT_HAS(std::string(e.what()), "cut short");
    }
}

// ---- what must be read

TEST(Safetensors, UnusualButSound) {
    EXPECT_EQ(fault(file_of("{}", "")), "");
    EXPECT_EQ(fault(file_of("  \n{}\t ", "")), "");  // JSON's white space, before as well as after
    EXPECT_EQ(fault(file_of(entry("\"F32\"", "[]", "[0,4]"), "1234")), "");   // a scalar
    EXPECT_EQ(fault(file_of(entry("\"F16\"", "[3,0,2]", "[0,0]"), "")), "");  // nothing at all
    EXPECT_EQ(fault(file_of(R"({"z":{"dtype":"BF16","shape":[0],"data_offsets":[2,2]},)"
                            R"("x":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}})",
                            "12")),
              "");
    EXPECT_EQ(fault(file_of(entry("\"I32\"", "[1,1,2]", "[0,8]"), EIGHT)), "");
}

TEST(Safetensors, TensorsAreFoundAndReadUnaligned) {
    const TemporaryFolder folder;
    const float numbers[2] = {1.5f, -2.25f};
    std::string data(3, '\0');  // one BF16 in two bytes and one F32 behind it, at an odd address
    data.assign("\x80\x3f", 2);
    data += std::string(reinterpret_cast<const char*>(numbers), 8);
    write_file_atomic(folder.file("m"), file_of(R"({"b":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]},)"
                                                R"("f":{"dtype":"F32","shape":[2],"data_offsets":[2,10]}} )",
                                                data));
    const SafetensorsFile file(folder.file("m"));
    float f[2], b;
    load_tensors({{&file.get("f"), tensor(f, 1, 2)}, {&file.get("b"), tensor(&b, 1, 1)}});
    EXPECT_EQ(f[0], 1.5f);
    EXPECT_EQ(f[1], -2.25f);
    EXPECT_EQ(b, 1.0f);
    EXPECT_EQ(file.find("g"), nullptr);
    EXPECT_THROW(file.get("g"), Error);
}

// ---- writing

// Byte for byte what the safetensors library of Python writes for the same tensors.
TEST(Safetensors, LayoutOfWrittenFiles) {
    const TemporaryFolder folder;
    float b[2] = {1, 2}, a[3] = {3, 4, 5};
    save_tensors(
        folder.file("m"),
        {{"b", tensor(b, 2, 1)}, {"h", tensor(a, 1, 3), true, DType::BF16}, {"a", tensor(a, 1, 3), true}});
    const std::string header =
        R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[3],"data_offsets":[0,12]},)"
        R"("b":{"dtype":"F32","shape":[2,1],"data_offsets":[12,20]},)"
        R"("h":{"dtype":"BF16","shape":[3],"data_offsets":[20,26]}})";
    const std::string padded = header + std::string((8 - header.size() % 8) % 8, ' ');
    const std::string data = std::string(reinterpret_cast<char*>(a), 12) +
                             std::string(reinterpret_cast<char*>(b), 8) +
                             std::string("\x40\x40\x80\x40\xa0\x40", 6);
    EXPECT_EQ(read_text(folder.file("m")), file_of(padded, data));
}

TEST(Safetensors, HeadersArePaddedToEight) {
    const TemporaryFolder folder;
    float x = 1;
    for (size_t length = 1; length <= 9; length++) {
        const std::string name(length, 'n');
        save_tensors(folder.file("m"), {{name, tensor(&x, 1, 1), true}});
        const std::string bytes = read_text(folder.file("m"));
        uint64_t header;
        memcpy(&header, bytes.data(), 8);
        EXPECT_EQ(header % 8, 0u);
        EXPECT_EQ(bytes[8], '{');
        EXPECT_EQ(bytes.size(), 8 + header + 4);
        EXPECT_EQ(SafetensorsFile(folder.file("m")).get(name).shape, std::vector<int64_t>({1}));
    }
}

TEST(Safetensors, NothingRemainsOfAFileThatWasNotFinished) {
    const TemporaryFolder folder;
    {
        SafetensorsWriter writer(folder.file("m"), {{"x", DType::F32, {2}}});
        writer.write("1234", 4);
        EXPECT_THROW(writer.commit(), Error);
        EXPECT_THROW(writer.write("123456", 6), Error);
    }
    EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

// ---- types

TEST(Safetensors, EveryTypeIsReadAsEveryOther) {
    const TemporaryFolder folder;
    const std::vector<float> exact = {0, -0.0f, 1, -1.5f, 0.125f, 448, INFINITY, -INFINITY};
    std::vector<Bf16> bf16;
    for (const float x : exact) bf16.push_back(to_bf16(x));
    const uint16_t f16[8] = {0x0000, 0x8000, 0x3c00, 0xbe00, 0x3000, 0x5f00, 0x7c00, 0xfc00};
    const std::string data = std::string(reinterpret_cast<const char*>(exact.data()), 32) +
                             std::string(reinterpret_cast<const char*>(bf16.data()), 16) +
                             std::string(reinterpret_cast<const char*>(f16), 16);
    write_file_atomic(folder.file("m"),
                      file_of(R"({"f32":{"dtype":"F32","shape":[8],"data_offsets":[0,32]},)"
                              R"("bf16":{"dtype":"BF16","shape":[8],"data_offsets":[32,48]},)"
                              R"("f16":{"dtype":"F16","shape":[8],"data_offsets":[48,64]}})",
                              data));
    const SafetensorsFile file(folder.file("m"));
    for (const char* name : {"f32", "bf16", "f16"}) {
        float wide[8];
        Bf16 narrow[8];
        load_tensors(
            {{&file.get(name), tensor(wide, 2, 4)}, {&file.get(name), tensor(narrow, 8, 1, DType::BF16)}});
        EXPECT_EQ(memcmp(wide, exact.data(), 32), 0) << name;
        EXPECT_EQ(memcmp(narrow, bf16.data(), 16), 0) << name;
    }
}

// Loading a large model takes a while.
TEST(Safetensors, LoadingEndsWhenItIsInterrupted) {
    const TemporaryFolder folder;
    std::vector<float> x = {1, 2, 3}, y(3);
    save_tensors(folder.file("m"), {{"x", tensor(x.data(), 1, 3)}});
    const SafetensorsFile file(folder.file("m"));
    const std::vector<Load> loads = {{&file.get("x"), tensor(y.data(), 1, 3)}};
    const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGBUS};
    struct sigaction before[4];
    for (int i = 0; i < 4; i++) sigaction(numbers[i], nullptr, &before[i]);
    catch_signals();
    raise(SIGINT);
    const std::string fault = fault_of(Exit::Interrupted, [&] { load_tensors(loads); });
    EXPECT_NE(fault.find("interrupted"), std::string::npos) << fault;
    EXPECT_EQ(y, std::vector<float>(3));
    EXPECT_TRUE(take_interrupt());
    load_tensors(loads);
    EXPECT_EQ(y, x);
    for (int i = 0; i < 4; i++) sigaction(numbers[i], &before[i], nullptr);
}

// The emulated GPU (or a real one) is not the host: its tensors go through upload and download, in pieces.
TEST(Safetensors, DevicesAreReachedThroughUploadAndDownload) {
    const TemporaryFolder folder;
    std::vector<float> x(70'000);
    for (size_t i = 0; i < x.size(); i++) x[i] = float(i) * 0.5f;
    save_tensors(folder.file("f32"), {{"x", tensor(x.data(), 70, 1000)}});
    const auto gpu = make_cuda_ops(0, 1 << 20);
    ASSERT_FALSE(gpu->on_host());
    Arena arena("there", *gpu);
    Tensor wide, narrow;
    arena.add(&wide, "wide", 70, 1000);
    arena.add(&narrow, "narrow", 70, 1000, DType::BF16);
    arena.allocate();
    const SafetensorsFile file(folder.file("f32"));
    load_tensors({{&file.get("x"), wide}, {&file.get("x"), narrow}}, *gpu);
    save_tensors(
        folder.file("back"),
        {{"wide", wide}, {"rounded", wide, false, DType::BF16}, {"narrow", narrow, false, DType::BF16}},
        *gpu);

    const SafetensorsFile back(folder.file("back"));
    std::vector<float> y(x.size()), rounded(x.size()), n(x.size());
    load_tensors({{&back.get("wide"), tensor(y.data(), 70, 1000)},
                  {&back.get("rounded"), tensor(rounded.data(), 70, 1000)},
                  {&back.get("narrow"), tensor(n.data(), 70, 1000)}});
    EXPECT_EQ(x, y);
    EXPECT_EQ(rounded, n);
    for (size_t i = 0; i < x.size(); i++) ASSERT_EQ(n[i], to_float(to_bf16(x[i]))) << i;
}
