// task_countdown.cpp -- make the target from the numbers, each used once.
//
// `24 from 3,7,6:` is answered `7-3=4;4*6=24;(7-3)*6`: the steps, then the whole expression, which alone is
// checked. Numbers are made into a target by drawn steps, so that every problem has a solution.
#include <algorithm>
#include <cctype>
#include <cstdlib>

#include "train/tasks/rational.h"
#include "train/tasks/task.h"
#include "utils/error.h"
#include "utils/philox.h"

namespace {

struct Options {
    int numbers;  // given
    int largest;  // of the given numbers
    int largest_target;
    std::string operations;  // of + - * /
    double held_out;
    uint64_t seed;
};

// ---- drawing

struct Term {
    int value;
    std::string expression;
    bool atom;  // needs no parentheses
};

// Joins two terms, or false where the operation gives no positive whole number or merely repeats one of them.
bool join(Term a, Term b, char operation, Term* out) {
    if ((operation == '-' || operation == '/') && a.value < b.value) std::swap(a, b);
    int value = 0;
    if (operation == '+') value = a.value + b.value;
    if (operation == '-') value = a.value - b.value;
    if (operation == '*') value = a.value * b.value;
    if (operation == '/') value = a.value % b.value == 0 ? a.value / b.value : 0;
    const bool idle = (operation == '*' || operation == '/') && b.value == 1;
    if (value <= 0 || value > 9999 || idle) return false;
    const auto wrap = [](const Term& t) { return t.atom ? t.expression : "(" + t.expression + ")"; };
    *out = {value, wrap(a) + operation + wrap(b), false};
    return true;
}

std::string prompt_of(int target, const std::vector<int>& given) {
    std::string out = std::to_string(target) + " from ";
    for (size_t i = 0; i < given.size(); i++) out += (i ? "," : "") + std::to_string(given[i]);
    return out + ":";
}

bool draw(const Options& o, Rng& rng, Problem* out, std::string* key) {
    std::vector<Term> terms;
    std::vector<int> given;
    for (int i = 0; i < o.numbers; i++) {
        given.push_back(1 + int(rng.below(uint32_t(o.largest))));
        terms.push_back({given.back(), std::to_string(given.back()), true});
    }
    std::string steps;
    while (terms.size() > 1) {
        std::swap(terms[rng.below(uint32_t(terms.size()))], terms.back());
        const Term b = terms.back();
        terms.pop_back();
        std::swap(terms[rng.below(uint32_t(terms.size()))], terms.back());
        const Term a = terms.back();
        const char operation = o.operations[rng.below(uint32_t(o.operations.size()))];
        if (!join(a, b, operation, &terms.back())) return false;
        const bool swapped = (operation == '-' || operation == '/') && a.value < b.value;
        steps += format("%d%c%d=%d;", swapped ? b.value : a.value, operation, swapped ? a.value : b.value,
                        terms.back().value);
    }
    if (terms[0].value > o.largest_target) return false;
    out->answer = std::to_string(terms[0].value);
    out->prompt = prompt_of(terms[0].value, given);
    out->solution = steps + terms[0].expression;
    // the same numbers in another order are the same problem
    std::sort(given.begin(), given.end());
    *key = out->answer;
    for (const int value : given) *key += "," + std::to_string(value);
    return true;
}

Problem problem(const Options& o, Split split, int64_t index) {
    CHECK(index >= 0 && index < (int64_t(1) << 31), "problem %lld", (long long)index);
    Rng rng(o.seed, Stream::Task, uint32_t(index) * 2 + (split == Split::HeldOut));
    for (int attempt = 0; attempt < 100000; attempt++) {
        Problem out;
        std::string key;
        if (draw(o, rng, &out, &key) && split_of(key, o.held_out) == split) return out;
    }
    fail(Exit::Usage,
         "task 'countdown': 100000 draws gave no problem of these options; a larger target or more "
         "operations help");
}

// ---- checking

// sum := product (('+' | '-') product)*,  product := factor (('*' | '/') factor)*,  factor := number | '(' sum ')'
class Expression {
  public:
    explicit Expression(std::string_view text) : text_(text) {}
    std::vector<int> used;

    std::optional<Rational> value() {
        const auto result = sum(0);
        skip();
        return at_ == text_.size() ? result : std::nullopt;
    }

  private:
    void skip() {
        while (at_ < text_.size() && text_[at_] == ' ') at_++;
    }
    bool take(char c) {
        skip();
        if (at_ == text_.size() || text_[at_] != c) return false;
        at_++;
        return true;
    }
    std::optional<Rational> sum(int depth) {
        auto left = product(depth);
        while (left) {
            const bool plus = take('+');
            if (!plus && !take('-')) break;
            const auto right = product(depth);
            if (!right) return {};
            left = plus ? add(*left, *right) : subtract(*left, *right);
        }
        return left;
    }
    std::optional<Rational> product(int depth) {
        auto left = factor(depth);
        while (left) {
            const bool times = take('*');
            if (!times && !take('/')) break;
            const auto right = factor(depth);
            if (!right) return {};
            left = times ? multiply(*left, *right) : divide(*left, *right);
        }
        return left;
    }
    std::optional<Rational> factor(int depth) {
        if (depth > 32) return {};
        if (take('(')) {
            const auto inner = sum(depth + 1);
            return take(')') ? inner : std::nullopt;
        }
        skip();
        int number = 0, digits = 0;
        for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9' && digits < 9; digits++)
            number = number * 10 + (text_[at_++] - '0');
        if (digits == 0) return {};
        used.push_back(number);
        return Rational{number, 1};
    }

    std::string_view text_;
    size_t at_ = 0;
};

double reward(const Problem& problem, std::string_view response) {
    std::vector<int> given;
    for (const char* at = problem.prompt.c_str(); *at;) {
        char* end = nullptr;
        if (isdigit(uint8_t(*at))) given.push_back(int(strtol(at, &end, 10)));
        at = end ? end : at + 1;
    }
    const int target = given.empty() ? 0 : given[0];
    if (!given.empty()) given.erase(given.begin());
    if (prompt_of(target, given) != problem.prompt)  // of a saved response, say
        fail(Exit::BadFile, "task 'countdown': '%s' is no problem of it, which would read '24 from 3,7,6:'",
             problem.prompt.c_str());
    Expression expression(final_answer(response));
    const auto value = expression.value();
    std::sort(given.begin(), given.end());
    std::sort(expression.used.begin(), expression.used.end());
    return value && *value == Rational{target, 1} && expression.used == given ? 1 : 0;
}

}  // namespace

Task make_countdown(TaskOptions& options, uint64_t seed) {
    Options o;
    o.seed = seed;
    o.numbers = options.integer("numbers", 3, 2, 6);
    o.largest = options.integer("largest", 12, 2, 99);
    o.largest_target = options.integer("largest_target", 99, 2, 9999);
    o.operations = options.text("operations", "+-*");
    o.held_out = options.number("held_out", 0.1, 0.01, 0.9);
    if (o.operations.empty() || o.operations.find_first_not_of("+-*/") != std::string::npos) {
        fail(Exit::Usage, "task 'countdown': operations is '%s', it must be some of + - * /",
             o.operations.c_str());
    }
    for (const Split split : {Split::Train, Split::HeldOut})
        problem(o, split, 0);  // fails now, not in the run
    Task task;
    task.problem = [o](Split split, int64_t index) { return problem(o, split, index); };
    task.reward = reward;
    const int digits = o.largest < 10 ? 1 : 2;
    task.longest_solution = (o.numbers - 1) * 16 + o.numbers * digits + 3 * (o.numbers - 1);
    return task;
}
