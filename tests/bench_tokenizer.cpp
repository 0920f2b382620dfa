// Encoding and decoding GSM8K's training set (questions and answers, one call for each) on one thread with
// Qwen3's tokenizer. Times are of the thread's own processor time, the best of 7: the machine may be busy.
#include <algorithm>
#include <cstdio>
#include <ctime>
#include <exception>

#include "tokenizer/tokenizer.h"
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
    size_t tokens = 0;
    const auto encode_all = [&] {
        for (size_t i = 0; i < texts.size(); i++) {
            ids[i].clear();
            tokenizer->encode(texts[i], true, ids[i]);
        }
    };
    const double cold = best_of(1, encode_all), warm = best_of(7, encode_all);
    for (const auto& one : ids) tokens += one.size();
    size_t decoded = 0;
    const double decode = best_of(7, [&] {
        for (const auto& one : ids) decoded += tokenizer->decode(one).size();
    });
    const double t = double(tokens) * 1e-6, b = double(bytes) * 1e-6;
    printf("tokenizer   %zu texts, %zu tokens, load %.0f ms\n", texts.size(), tokens, load * 1e3);
    printf("  encode, first pass    %7.2f M tokens/s  %7.1f MB/s\n", t / cold, b / cold);
    printf("  encode                %7.2f M tokens/s  %7.1f MB/s\n", t / warm, b / warm);
    printf("  decode                %7.2f M tokens/s  %7.1f MB/s\n", t / decode, b / decode);
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
