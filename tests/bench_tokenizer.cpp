// Encoding and decoding GSM8K's training set (questions and answers, one call for each) on one thread with
// Qwen3's tokenizer, and beside it Hugging Face's `tokenizers` on one thread where $PYTHON (python3) has it.
// Times are of the thread's own processor time, the best of 7: the machine may be busy.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <exception>

#include "tokenizer/tokenizer.h"
#include "utils/error.h"
#include "utils/files.h"
#include "utils/json.h"

namespace {

double cpu_seconds() {
    timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return double(now.tv_sec) + 1e-9 * double(now.tv_nsec);
}

template <class Run>
double best_of(int rounds, const Run& run) {
    double best = 1e30;
    for (int i = 0; i < rounds; i++) {
        const double start = cpu_seconds();
        run();
        best = std::min(best, cpu_seconds() - start);
    }
    return best;
}

// Encoding all texts.
struct Encoding {
    size_t tokens;
    uint32_t checksum;  // of every id in order, as tests/bench_tokenizers.py computes it
    double first_s, fastest_s;
};

// The peer's line in the table; throws where its ids are not ours.
void compare(const char* folder, const char* data, const Encoding& ours) {
    const char* wanted = getenv("PYTHON");
    const std::string python = wanted && *wanted ? wanted : "python3";
    const std::string command =
        format("'%s' tests/bench_tokenizers.py '%s' '%s' 2>&1", python.c_str(), folder, data);
    FILE* pipe = popen(command.c_str(), "r");
    CHECK(pipe, "cannot run %s", command.c_str());
    std::string text;
    for (int c; (c = fgetc(pipe)) != EOF;) text += char(c);
    if (pclose(pipe) != 0) {
        while (text.ends_with('\n')) text.pop_back();
        printf("  tokenizers            skipped: %s: %s; PYTHON=FILE names a Python that has it\n",
               python.c_str(), text.substr(text.rfind('\n') + 1).c_str());
        return;
    }
    Encoding theirs{};
    char version[32];
    CHECK(sscanf(text.c_str(), "%31s %zu %u %lf %lf", version, &theirs.tokens, &theirs.checksum,
                 &theirs.first_s, &theirs.fastest_s) == 5,
          "%s says %s", command.c_str(), text.c_str());
    CHECK(theirs.tokens == ours.tokens && theirs.checksum == ours.checksum,
          "tokenizers %s gives %zu tokens, this %zu, or other ids", version, theirs.tokens, ours.tokens);
    printf(
        "  tokenizers %-10s %7.2f M tokens/s, the same ids: this is %.1f times as fast, in the first pass "
        "%.1f\n",
        version, double(theirs.tokens) * 1e-6 / theirs.fastest_s, theirs.fastest_s / ours.fastest_s,
        theirs.first_s / ours.first_s);
}

void bench(const char* folder, const char* data) {
    std::vector<std::string> texts;
    size_t bytes = 0;
    read_jsonl(data, [&](const Json& line, const std::string& where) {
        for (const char* field : {"question", "answer"}) {
            texts.push_back(get_string(line, field, where));
            bytes += texts.back().size();
        }
    });
    const double start = cpu_seconds();
    auto tokenizer = load_tokenizer(folder);
    const double load = cpu_seconds() - start;
    std::vector<std::vector<int>> ids(texts.size());
    const auto encode_all = [&] {
        for (size_t i = 0; i < texts.size(); i++) {
            ids[i].clear();
            tokenizer->encode(texts[i], true, ids[i]);
        }
    };
    const double cold = best_of(1, encode_all), warm = best_of(7, encode_all);
    Encoding ours{0, 0, cold, warm};
    for (const auto& one : ids) {
        ours.tokens += one.size();
        for (const int id : one) ours.checksum = ours.checksum * 31 + uint32_t(id);
    }
    size_t decoded = 0;
    const double decode = best_of(7, [&] {
        for (const auto& one : ids) decoded += tokenizer->decode(one).size();
    });
    const double t = double(ours.tokens) * 1e-6, b = double(bytes) * 1e-6;
    printf("tokenizer   %zu texts, %zu tokens, load %.0f ms\n", texts.size(), ours.tokens, load * 1e3);
    printf("  encode, first pass    %7.2f M tokens/s  %7.1f MB/s\n", t / cold, b / cold);
    printf("  encode                %7.2f M tokens/s  %7.1f MB/s\n", t / warm, b / warm);
    printf("  decode                %7.2f M tokens/s  %7.1f MB/s\n", t / decode, b / decode);
    compare(folder, data, ours);
}

}  // namespace

int main(int argc, char** argv) {
    const char* folder = argc > 1 ? argv[1] : "../shared/data/tokenizer/qwen3-sdar";
    const char* data = argc > 2 ? argv[2] : "../shared/data/tasks/gsm8k_train.jsonl";
    try {
        if (argc == 1 && !(has_tokenizer(folder) && file_exists(data))) {
            printf("tokenizer   skipped: %s or %s is not there\n", folder, data);
        } else {
            bench(folder, data);
        }
    } catch (const std::exception& error) {
        fprintf(stderr, "bench_tokenizer: %s\n", error.what());
        return 1;
    }
}
