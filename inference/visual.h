// visual.h -- a response while its blocks fill in, drawn on a terminal: masks as ░, tokens coloured by their probability.
#pragma once
#include <cstdio>
#include <string>
#include <vector>

#include "inference/engine.h"
#include "inference/text_model.h"

// One character cell or more; a newline has the text "\n".
struct Cell {
    std::string text;
    int width;   // columns
    int color;   // of the 256 of a terminal; -1: dim
    bool final;  // will not change any more
};

// What a response looks like now. Masks are dim, special tokens too.
std::vector<Cell> cells_of(const Tokenizer* tokenizer, const PartialResponse& so_far);

// Cells cut into lines of at most `width` columns; a newline ends a line and is not part of it.
std::vector<std::vector<Cell>> wrap(const std::vector<Cell>& cells, int width);

// From red (unlikely) over yellow to green.
int color_of(float probability);

class BlockView {
  public:
    // On a terminal the picture is redrawn in place, at most every `frame_s` seconds, slowly enough to follow; elsewhere
    // every step is a line of its own, without colours.
    BlockView(FILE* out, const Tokenizer* tokenizer, bool terminal, int width, double frame_s);
    void show(const PartialResponse& so_far);
    void finish();

  private:
    void draw(const std::vector<std::vector<Cell>>& lines);
    FILE* out_;
    const Tokenizer* tokenizer_;
    const bool terminal_;
    const int width_;
    const double frame_s_;
    size_t settled_ = 0;  // lines that are final and drawn for good
    size_t drawn_ = 0;    // lines drawn below them
    int step_ = 0;
};

int terminal_width();  // columns of stdout's terminal, 80 where it does not say
