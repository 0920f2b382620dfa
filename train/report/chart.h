// chart.h -- curves as inline SVG, coloured by the page's own variables so that they suit light and dark.
#pragma once
#include <string>
#include <vector>

struct Series {
    std::string label = {};                   // "" where the chart's title says it
    int colour = 0;                           // --c0 ... --c5 of the page
    std::vector<double> x = {}, y = {};       // x ascending; a y that is not finite is a gap
    std::vector<double> low = {}, high = {};  // a band around y; empty: none
    bool dots = false;                        // a mark at every point: few, and measured one by one
};

struct Chart {
    std::string title = {}, note = {};  // the note says what is seen, in small
    bool percent = false;               // y is a share
    bool from_zero = true;              // the axis holds 0
    bool legend = true;
    std::vector<Series> series = {};
};

// A <figure>: title, legend, curves; "" where there is nothing to draw. Long series are drawn as means of
// neighbouring points; with many points a smoothed curve lies over a pale one.
std::string chart_html(const Chart& chart);

// Colours and what they stand for, on a line: of one chart, or of a page of them.
std::string legend_html(const std::vector<Series>& series);

// What charts need of the page's style, and the script that reads values off under the pointer, once per page.
std::string chart_style();
std::string chart_script();

// At most n + 1 round numbers that cover [low, high].
std::vector<double> round_ticks(double low, double high, int n);
