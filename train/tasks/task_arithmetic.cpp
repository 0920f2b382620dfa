// task_arithmetic.cpp -- sums with the working shown, column by column from the right.
//
// `347+586=` is answered `7+6+0=13;4+8+1=13;3+5+1=09;933`: in every column the two digits, the carry that
// comes in, and the carry and digit that go out; then the answer. Subtraction carries a borrow the same way
// (`3-6-0=17`: 7, borrow 1), and multiplication is by one digit (`7*6+0=42`). All columns are equally long,
// so that much of a block can be read off the prompt at once, while carries pass from column to column.
#include "train/tasks/task.h"
#include "utils/error.h"
#include "utils/philox.h"

namespace {

struct Options {
    int digits;              // of the first operand; of both in sums and differences
    std::string operations;  // of + - *
    std::string
        working;      // full, totals (of each column, carry included: `13;13;09;933`), off: the answer alone
    double held_out;  // share of all problems
    uint64_t seed;
};

struct Sum {
    int64_t a, b;
    char operation;
};

std::string working(Sum sum, int digits, bool full) {
    std::string out;
    int carry = 0;
    for (int i = 0; i < digits; i++) {
        const int x = int(sum.a % 10), y = int(sum.operation == '*' ? sum.b : sum.b % 10);
        sum.a /= 10;
        if (sum.operation != '*') sum.b /= 10;
        int digit, next;
        if (sum.operation == '-') {
            const int difference = x - y - carry;
            next = difference < 0;
            digit = difference + 10 * next;
        } else {
            const int total = (sum.operation == '*' ? x * y : x + y) + carry;
            next = total / 10;
            digit = total % 10;
        }
        if (full)
            out +=
                format("%d%c%d%c%d=", x, sum.operation, y, sum.operation == '*' ? '+' : sum.operation, carry);
        out += format("%d%d;", next, digit);
        carry = next;
    }
    return out;
}

int64_t power_of_ten(int n) { return n == 0 ? 1 : 10 * power_of_ten(n - 1); }

Sum draw(const Options& options, Rng& rng) {
    const int64_t low = power_of_ten(options.digits - 1);
    const auto operand = [&] { return low + int64_t(rng.below(uint32_t(9 * low))); };
    const char operation = options.operations[rng.below(uint32_t(options.operations.size()))];
    Sum sum = {operand(), operation == '*' ? int64_t(rng.below(10)) : operand(), operation};
    if (operation == '-' && sum.a < sum.b) std::swap(sum.a, sum.b);
    return sum;
}

Problem problem(const Options& options, Split split, int64_t index) {
    CHECK(index >= 0 && index < (int64_t(1) << 31), "problem %lld", (long long)index);
    Rng rng(options.seed, Stream::Task, uint32_t(index) * 2 + (split == Split::HeldOut));
    for (int attempt = 0; attempt < 100000; attempt++) {
        const Sum sum = draw(options, rng);
        // a+b and b+a are one problem
        const auto key = format("%lld%c%lld", (long long)std::max(sum.a, sum.b), sum.operation,
                                (long long)std::min(sum.a, sum.b));
        if (split_of(key, options.held_out) != split) continue;
        const int64_t result = sum.operation == '+'   ? sum.a + sum.b
                               : sum.operation == '-' ? sum.a - sum.b
                                                      : sum.a * sum.b;
        Problem out;
        out.prompt = format("%lld%c%lld=", (long long)sum.a, sum.operation, (long long)sum.b);
        out.answer = std::to_string(result);
        out.solution =
            (options.working == "off" ? "" : working(sum, options.digits, options.working == "full")) +
            out.answer;
        return out;
    }
    fail(Exit::Usage, "task 'arithmetic': there are too few sums for a held-out share of %g",
         options.held_out);
}

}  // namespace

Task make_arithmetic(TaskOptions& options, uint64_t seed) {
    Options o;
    o.seed = seed;
    o.digits = options.integer("digits", 3, 1, 9);
    o.operations = options.text("operations", "+");
    o.working = options.choice("working", {"full", "totals", "off"});
    o.held_out = options.number("held_out", 0.1, 0.01, 0.9);
    if (o.operations.empty() || o.operations.find_first_not_of("+-*") != std::string::npos) {
        fail(Exit::Usage, "task 'arithmetic': operations is '%s', it must be some of + - *",
             o.operations.c_str());
    }
    for (const Split split : {Split::Train, Split::HeldOut})
        problem(o, split, 0);  // fails now, not in the run
    Task task;
    task.problem = [o](Split split, int64_t index) { return problem(o, split, index); };
    task.reward = [](const Problem& p, std::string_view response) {
        return final_answer(response) == p.answer ? 1.0 : 0.0;
    };
    task.longest_solution = (o.working == "full"     ? 9
                             : o.working == "totals" ? 3
                                                     : 0) *
                                o.digits +
                            o.digits + 1;
    return task;
}
