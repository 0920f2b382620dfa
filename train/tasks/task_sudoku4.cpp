// task_sudoku4.cpp -- Sudoku of 4 x 4: every row, column and quarter holds 1 to 4.
//
// `1..4/.4.2/2..3/4.2.:` is answered by the whole grid, `1324/...`. Every puzzle has exactly one solution.
// All puzzles of one solution are in the same split, so that a held-out grid has never been seen in any form.
#include <algorithm>
#include <array>

#include "train/tasks/task.h"
#include "utils/error.h"
#include "utils/philox.h"

namespace {

using Grid = std::array<int, 16>;  // row by row, 0: empty

struct Options {
    int holes;     // empty cells
    bool partial;  // reward: the share of holes that are right, instead of all or nothing
    double held_out;
    uint64_t seed;
};

bool fits(const Grid& grid, int cell, int value) {
    const int row = cell / 4, column = cell % 4;
    for (int i = 0; i < 16; i++) {
        const bool sees = i / 4 == row || i % 4 == column || (i / 8 == row / 2 && i % 4 / 2 == column / 2);
        if (sees && grid[size_t(i)] == value) return false;
    }
    return true;
}

// Counts solutions up to `limit`; the last one found is left in `solution`. Values are tried in the order given.
int solve(Grid& grid, const std::array<int, 4>& order, int limit, Grid* solution) {
    const auto hole = std::find(grid.begin(), grid.end(), 0);
    if (hole == grid.end()) {
        *solution = grid;
        return 1;
    }
    const int cell = int(hole - grid.begin());
    int found = 0;
    for (const int value : order) {
        if (found == limit || !fits(grid, cell, value)) continue;
        grid[size_t(cell)] = value;
        found += solve(grid, order, limit - found, solution);
        grid[size_t(cell)] = 0;
    }
    return found;
}

std::string text_of(const Grid& grid) {
    std::string out;
    for (int i = 0; i < 16; i++) {
        if (i % 4 == 0 && i > 0) out += '/';
        out += grid[size_t(i)] == 0 ? '.' : char('0' + grid[size_t(i)]);
    }
    return out;
}

template <size_t N>
std::array<int, N> shuffled(Rng& rng, int first) {
    std::array<int, N> out;
    for (size_t i = 0; i < N; i++) out[i] = first + int(i);
    for (size_t i = N; i-- > 1;) std::swap(out[i], out[rng.below(uint32_t(i + 1))]);
    return out;
}

// A random grid: the first row and a few other cells are drawn, the rest follows in a random order.
Grid random_grid(Rng& rng) {
    for (;;) {
        Grid grid{}, solution{};
        const auto row = shuffled<4>(rng, 1);
        std::copy(row.begin(), row.end(), grid.begin());
        for (int i = 0; i < 3; i++) {
            const int cell = 4 + int(rng.below(12)), value = 1 + int(rng.below(4));
            if (grid[size_t(cell)] == 0 && fits(grid, cell, value)) grid[size_t(cell)] = value;
        }
        if (solve(grid, shuffled<4>(rng, 1), 1, &solution) > 0) return solution;
    }
}

// Empties cells in a random order, keeping the solution unique; false if this order does not lead to enough holes.
bool dig(const Grid& solution, int holes, Rng& rng, Grid* puzzle) {
    *puzzle = solution;
    int dug = 0;
    for (const int cell : shuffled<16>(rng, 0)) {
        if (dug == holes) break;
        Grid trial = *puzzle, ignored;
        trial[size_t(cell)] = 0;
        if (solve(trial, {1, 2, 3, 4}, 2, &ignored) != 1) continue;
        (*puzzle)[size_t(cell)] = 0;
        dug++;
    }
    return dug == holes;
}

Problem problem(const Options& o, Split split, int64_t index) {
    CHECK(index >= 0 && index < (int64_t(1) << 31), "problem %lld", (long long)index);
    Rng rng(o.seed, Stream::Task, uint32_t(index) * 2 + (split == Split::HeldOut));
    for (int attempt = 0; attempt < 100000; attempt++) {
        const Grid solution = random_grid(rng);
        Grid puzzle;
        if (split_of(text_of(solution), o.held_out) != split || !dig(solution, o.holes, rng, &puzzle))
            continue;
        return {text_of(puzzle) + ":", text_of(solution), text_of(solution)};
    }
    fail(Exit::Usage, "task 'sudoku4': there are too few grids for a held-out share of %g", o.held_out);
}

double share_right(const Problem& problem, std::string_view answer) {
    int holes = 0, right = 0;
    for (size_t i = 0; i < problem.answer.size(); i++) {
        if (problem.prompt[i] != '.') continue;
        holes++;
        right += i < answer.size() && answer[i] == problem.answer[i];
    }
    // an answer that goes on, or changes what was given, is not right however many holes are
    const bool whole = answer == problem.answer;
    return whole ? 1 : double(right) / (holes + 1);
}

}  // namespace

Task make_sudoku4(TaskOptions& options, uint64_t seed) {
    Options o;
    o.seed = seed;
    o.holes = options.integer("holes", 8, 1, 11);
    o.partial = options.flag("partial", false);
    o.held_out = options.number("held_out", 0.1, 0.05, 0.9);
    for (const Split split : {Split::Train, Split::HeldOut}) problem(o, split, 0);
    Task task;
    task.problem = [o](Split split, int64_t index) { return problem(o, split, index); };
    task.reward = [o](const Problem& p, std::string_view response) {
        const size_t length = text_of({}).size();
        if (p.prompt.size() != length + 1 || p.answer.size() != length)  // of a saved response, say
            fail(Exit::BadFile, "task 'sudoku4': '%s' is no problem of it, which would read '%s'",
                 p.prompt.c_str(), problem(o, Split::Train, 0).prompt.c_str());
        const std::string_view answer = final_answer(response);
        return o.partial ? share_right(p, answer) : double(answer == p.answer);
    };
    task.longest_solution = 19;
    return task;
}
