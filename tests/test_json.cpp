#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "tests/fault_of.h"
#include "tests/temporary_folder.h"
#include "utils/error.h"
#include "utils/files.h"
#include "utils/json.h"
#include "utils/philox.h"

// The message of the Error that parsing this text throws; "" where it parses.
static std::string fault(const std::string& text) {
    return fault_of(Exit::BadFile, [&] { parse_json(text, "in"); });
}

TEST(Json, KeepsOrderAndValues) {
    const Json json =
        parse_json(R"({"z": 1, "a": [true, null, -2.5, "\u00e9"], "big": 18446744073709551615})", "in");
    EXPECT_EQ(dump(json), "{\"z\":1,\"a\":[true,null,-2.5,\"\xc3\xa9\"],\"big\":18446744073709551615}");
    EXPECT_EQ(json["big"].get<uint64_t>(), UINT64_MAX);
    EXPECT_EQ(json["a"][3], "\xc3\xa9");
    EXPECT_EQ(dump(parse_json("[]", "in")), "[]");
    EXPECT_EQ(dump(parse_json(" 7 ", "in")), "7");
    EXPECT_EQ(dump(parse_json("{\"a\":{}}", "in")), "{\"a\":{}}");
}

TEST(Json, SaysWhere) {
    EXPECT_EQ(fault("{\"a\": 1,\n \"b\": nope}").substr(0, 5), "in:2:");
    EXPECT_EQ(fault("{\"a\": 1, \"a\": 2}"), "in:1:12: key 'a' occurs twice");
    EXPECT_EQ(fault("{\"x\": {\"a\": 1,\n\"b\": 1,\n\"a\": 2}}"), "in:3:3: key 'a' occurs twice");
    EXPECT_EQ(fault("{\"x\": {\"a\": 1}, \"y\": {\"a\": 1}}"), "");
    EXPECT_EQ(fault(" \n"), "in: is empty, expected JSON");
}

TEST(Json, RefusesHostileText) {
    for (const std::string text : {"",
                                   " ",
                                   "{",
                                   "[1,]",
                                   "{\"a\":1,}",
                                   "{\"a\"}",
                                   "{a:1}",
                                   "[1] 2",
                                   "nan",
                                   "NaN",
                                   "-",
                                   "01",
                                   "+1",
                                   "1e999",
                                   "\"\\x\"",
                                   "\"\\ud800\"",
                                   "\"\\udc00\\ud800\"",
                                   "\"tab\there\"",
                                   "// c\n1",
                                   "'a'",
                                   "\"open",
                                   "tru",
                                   "[1 2]",
                                   "\xff\xfe"})
        EXPECT_NE(fault(text), "") << text;
    const char* not_utf8[] = {"\"\xff\"",     "\"\xc0\x80\"", "\"\xed\xa0\x80\"", "\"\xf4\x90\x80\x80\"",
                              "\"\xe2\x82\"", "\"\x80\""};
    for (const char* text : not_utf8) EXPECT_NE(fault(text), "") << text;
    EXPECT_NE(fault(std::string("\"a\0b\"", 5)), "");
    EXPECT_NE(fault(std::string("1\0", 2)), "");
}

TEST(Json, DepthIsLimited) {
    EXPECT_EQ(fault(std::string(64, '[') + std::string(64, ']')), "");
    EXPECT_NE(fault(std::string(65, '[') + std::string(65, ']')).find("nested deeper than 64"),
              std::string::npos);
    EXPECT_NE(fault(std::string(100000, '[')).find("nested deeper"), std::string::npos);
    std::string objects;
    for (int i = 0; i < 100000; i++) objects += "{\"a\":";
    EXPECT_NE(fault(objects).find("nested deeper"), std::string::npos);
}

TEST(Json, MessagesAreShort) {
    EXPECT_LT(fault("[\"" + std::string(1 << 20, 'a')).size(), 300u);
    EXPECT_LT(
        fault("{\"" + std::string(1 << 20, 'a') + "\":1,\"" + std::string(1 << 20, 'a') + "\":1}").size(),
        300u);
    EXPECT_EQ(fault("[nope").find("json.exception"), std::string::npos);
}

TEST(Json, ManyKeysInLinearTime) {  // 200,000 keys: a search per key would take minutes
    std::string text = "{";
    for (int i = 0; i < 200000; i++)
        text += (i ? ",\"key" : "\"key") + std::to_string(i) + "\":" + std::to_string(i);
    const Json json = parse_json(text + "}", "in");
    EXPECT_EQ(json.size(), 200000u);
    EXPECT_EQ(json.back(), 199999);
}

TEST(Json, Fields) {
    const Json json =
        parse_json(R"({"i": 7, "whole": 4096.0, "half": 0.5, "s": "x", "b": true, "n": null, "huge": 1e300,
                                     "u": 18446744073709551615, "min": -9223372036854775808})",
                   "in");
    EXPECT_EQ(get_int(json, "i", "in", 0, 10), 7);
    EXPECT_EQ(get_int(json, "whole", "in", 0, 10000), 4096);
    EXPECT_EQ(get_int(json, "min", "in", INT64_MIN, 0), INT64_MIN);
    EXPECT_EQ(get_number(json, "half", "in"), 0.5);
    EXPECT_EQ(get_number(json, "i", "in"), 7.0);
    EXPECT_EQ(get_string(json, "s", "in"), "x");
    EXPECT_TRUE(get_bool(json, "b", "in"));
    EXPECT_TRUE(has(json, "i"));
    EXPECT_FALSE(has(json, "n"));
    EXPECT_FALSE(has(json, "absent"));
    EXPECT_FALSE(has(Json(3), "i"));
    EXPECT_THROW(get_int(json, "i", "in", 8, 10), Error);
    EXPECT_THROW(get_int(json, "half", "in", 0, 10), Error);
    EXPECT_THROW(get_int(json, "huge", "in", 0, INT64_MAX), Error);
    EXPECT_THROW(get_int(json, "u", "in", 0, INT64_MAX), Error);
    EXPECT_THROW(get_int(json, "n", "in", 0, 10), Error);
    EXPECT_THROW(get_int(json, "b", "in", 0, 10), Error);
    EXPECT_THROW(get_number(json, "s", "in"), Error);
    EXPECT_EQ(get_number(json, "half", "in", 0.5, 1, "half to one"), 0.5);
    EXPECT_THROW(get_number(json, "half", "in", 0.6, 1, "more than half"), Error);
    EXPECT_THROW(get_number(json, "s", "in", 0, 1, "a number"), Error);
    EXPECT_THROW(get_bool(json, "i", "in"), Error);
    EXPECT_THROW(get_string(json, "i", "in"), Error);
    EXPECT_THROW(get_string(Json(3), "i", "in"), Error);
    try {
        get_int(json, "s", "config.json", 1, 9);
        FAIL();
    } catch (const Error& e) {
        EXPECT_STREQ(e.what(), "config.json: field 's' is \"x\", expected an integer from 1 to 9");
    }
}

TEST(Json, DumpReplacesInvalidUtf8) { EXPECT_EQ(dump(Json("a\xff")), "\"a\xef\xbf\xbd\""); }

TEST(Json, FloatsAreWrittenAsShortAsTheyReadBack) {
    const std::vector<float> floats = {-0.1f, 1.0f, -16777217.0f, 1e-45f, 3.4028235e38f, -0.30103f};
    EXPECT_EQ(dump(json_floats(floats)), "[-0.1,1.0,-16777216.0,1e-45,3.4028235e+38,-0.30103]");
    Rng rng(1, Stream::Noise);
    std::vector<float> random;
    for (int i = 0; i < 1000; i++) random.push_back(float(std::log(1 - rng.uniform())));
    EXPECT_EQ(parse_json(dump(json_floats(random)), "in").get<std::vector<float>>(), random);
    EXPECT_EQ(dump(json_floats(std::vector<float>{NAN, -INFINITY})), "[null,null]");
}

// The first ten; and a line that is no JSON is one of them.
TEST(Json, LinesAtFaultAreToldTogether) {
    const std::string path = temporary("faults.jsonl");
    const auto told = [&](int n_faulty) {
        std::string text = "{\"a\":1}\n", visited;
        for (int i = 0; i < n_faulty; i++) text += i == 1 ? "{\"a\":}\n" : "{\"a\":2}\n";
        write_file_atomic(path, text + "{\"a\":3}");
        const std::string fault = fault_of(Exit::BadFile, [&] {
            read_jsonl(path, [&](const Json& line, const std::string& where) {
                visited += dump(line["a"]);
                if (line["a"] == 2) fail(Exit::BadFile, "%s: two", where.c_str());
            });
        });
        EXPECT_EQ(visited, "1" + std::string(size_t(n_faulty - (n_faulty > 1)), '2') + "3");
        return fault;
    };
    EXPECT_EQ(told(0), "");
    EXPECT_EQ(told(1), path + ":2: two");
    const std::string ten = told(10), eleven = told(11);
    EXPECT_NE(ten.find(path + ":3:6: "), std::string::npos) << ten;
    EXPECT_TRUE(ten.ends_with("\n" + path + ":11: two")) << ten;
    EXPECT_EQ(eleven, ten + "\n" + path + ": 1 more is at fault");
    EXPECT_EQ(told(12), ten + "\n" + path + ": 2 more are at fault");
}

TEST(Json, LinesOfAFile) {
    const std::string path = temporary("lines.jsonl");
    write_file_atomic(path, "{\"a\":1}\r\n\n  \n{\"a\":2}");
    std::string seen;
    read_jsonl(path,
               [&](const Json& line, const std::string& where) { seen += dump(line) + "@" + where + ";"; });
    EXPECT_EQ(seen, "{\"a\":1}@" + path + ":1;{\"a\":2}@" + path + ":4;");
    write_file_atomic(path, "{\"a\":1}\n{\"a\":}\n");
    try {
        read_jsonl(path, [](const Json&, const std::string&) {});
        FAIL();
    } catch (const Error& e) {
        EXPECT_EQ(std::string(e.what()).find(path + ":2:6: "), 0u) << e.what();
    }
}
