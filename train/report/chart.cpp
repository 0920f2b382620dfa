#include "train/report/chart.h"

#include <algorithm>
#include <cmath>

#include "inference/html.h"
#include "utils/error.h"
#include "utils/json.h"

namespace {

constexpr int WIDTH = 440, HEIGHT = 200, LEFT = 46, RIGHT = 8, TOP = 8, BOTTOM = 22;
constexpr size_t MOST_POINTS = 400, MANY_POINTS = 40;

// Neighbouring points put together, so that no more than MOST_POINTS are left.
Series thinned(const Series& s) {
    const size_t n = s.x.size(), width = (n + MOST_POINTS - 1) / MOST_POINTS;
    if (width <= 1) return s;
    Series out = {.label = s.label, .colour = s.colour, .dots = s.dots};
    for (size_t from = 0; from < n; from += width) {
        const size_t to = std::min(from + width, n);
        const auto mean = [&](const std::vector<double>& v) {
            double sum = 0, count = 0;
            for (size_t i = from; i < to; i++)
                if (std::isfinite(v[i])) sum += v[i], count++;
            return count > 0 ? sum / count : NAN;
        };
        out.x.push_back(mean(s.x));
        out.y.push_back(mean(s.y));
        if (s.low.empty()) continue;
        out.low.push_back(mean(s.low));
        out.high.push_back(mean(s.high));
    }
    return out;
}

// The mean of a window of a twentieth of the curve, centred.
std::vector<double> smoothed(const std::vector<double>& y) {
    const int n = int(y.size()), half = std::max(n / 40, 1);
    std::vector<double> out;
    for (int i = 0; i < n; i++) {
        double sum = 0, count = 0;
        for (int k = std::max(i - half, 0); k <= std::min(i + half, n - 1); k++)
            if (std::isfinite(y[size_t(k)])) sum += y[size_t(k)], count++;
        out.push_back(std::isfinite(y[size_t(i)]) && count > 0 ? sum / count : NAN);
    }
    return out;
}

struct Axis {
    double low, high, begin, end;  // values, and where they lie
    double at(double v) const { return begin + (v - low) / (high - low) * (end - begin); }
};

std::string number(double v, bool percent, double span) {
    if (percent) return format(span < 0.02 ? "%.1f%%" : "%.0f%%", 100 * v);
    if (v == 0) return "0";
    const double size = std::max(std::abs(v), span);
    if (size >= 1e6 || size < 1e-3) return format("%.0e", v);
    const int digits = std::clamp(int(std::ceil(-std::log10(span))) + 1, 0, 6);
    std::string text = format("%.*f", digits, v);
    if (text.find('.') != std::string::npos) {
        while (text.back() == '0') text.pop_back();
        if (text.back() == '.') text.pop_back();
    }
    return text;
}

// A path through the finite points; a gap begins it anew.
std::string path(const std::vector<double>& x, const std::vector<double>& y, const Axis& ax, const Axis& ay) {
    std::string d;
    bool down = false;
    for (size_t i = 0; i < x.size(); i++) {
        if (!std::isfinite(y[i])) {
            down = false;
            continue;
        }
        d += format("%s%.1f %.1f", down ? "L" : "M", ax.at(x[i]), ay.at(y[i]));
        down = true;
    }
    return d;
}

std::string band(const Series& s, const Axis& ax, const Axis& ay) {
    std::string points;
    for (size_t i = 0; i < s.x.size(); i++)
        if (std::isfinite(s.low[i])) points += format("%.1f,%.1f ", ax.at(s.x[i]), ay.at(s.low[i]));
    for (size_t i = s.x.size(); i-- > 0;)
        if (std::isfinite(s.high[i])) points += format("%.1f,%.1f ", ax.at(s.x[i]), ay.at(s.high[i]));
    return format("<polygon class=\"band\" style=\"fill: var(--c%d)\" points=\"%s\"/>", s.colour,
                  points.c_str());
}

std::string curve(const Series& s, const Axis& ax, const Axis& ay) {
    std::string out;
    const bool many = s.x.size() > MANY_POINTS && !s.dots && s.low.empty();
    const auto line = [&](const std::vector<double>& y, const char* kind) {
        out += format("<path class=\"%s c%d\" style=\"stroke: var(--c%d)\" d=\"%s\"/>", kind, s.colour,
                      s.colour, path(s.x, y, ax, ay).c_str());
    };
    if (!s.low.empty()) out += band(s, ax, ay);
    if (many) line(s.y, "pale");
    line(many ? smoothed(s.y) : s.y, "curve");
    if (s.dots || s.x.size() == 1)
        for (size_t i = 0; i < s.x.size(); i++)
            if (std::isfinite(s.y[i]))
                out += format("<circle r=\"3\" style=\"fill: var(--c%d)\" cx=\"%.1f\" cy=\"%.1f\"/>",
                              s.colour, ax.at(s.x[i]), ay.at(s.y[i]));
    return out + "\n";
}

// What the script reads values from.
std::string readings(const std::vector<Series>& all, const Axis& ax) {
    Json data = {{"low", ax.low}, {"high", ax.high}, {"series", Json::array()}};
    for (const Series& s : all) {
        Json x = Json::array(), y = Json::array();
        for (size_t i = 0; i < s.x.size(); i++)
            if (std::isfinite(s.y[i])) {
                x.push_back(format("%.6g", s.x[i]));
                y.push_back(format("%.4g", s.y[i]));
            }
        data["series"].push_back({{"label", s.label}, {"x", x}, {"y", y}});
    }
    return html_text(dump(data));
}

// Low and high of everything that is drawn; false where there is nothing.
bool ranges(const std::vector<Series>& all, bool from_zero, Axis& ax, Axis& ay) {
    ax.low = ay.low = INFINITY;
    ax.high = ay.high = -INFINITY;
    for (const Series& s : all)
        for (size_t i = 0; i < s.x.size(); i++) {
            if (!std::isfinite(s.y[i])) continue;
            ax.low = std::min(ax.low, s.x[i]), ax.high = std::max(ax.high, s.x[i]);
            for (const double v :
                 {s.y[i], s.low.empty() ? s.y[i] : s.low[i], s.low.empty() ? s.y[i] : s.high[i]})
                if (std::isfinite(v)) ay.low = std::min(ay.low, v), ay.high = std::max(ay.high, v);
        }
    if (!(ax.low <= ax.high)) return false;
    if (ax.low == ax.high) ax.low -= 1, ax.high += 1;
    if (from_zero) ay.low = std::min(ay.low, 0.0), ay.high = std::max(ay.high, 0.0);
    if (ay.low == ay.high)
        ay.low -= ay.low ? std::abs(ay.low) / 2 : 0, ay.high += ay.high ? std::abs(ay.high) / 2 : 1;
    return true;
}

}  // namespace

std::vector<double> round_ticks(double low, double high, int n) {
    const double rough = (high - low) / n, power = std::pow(10, std::floor(std::log10(rough)));
    double step = 10 * power;
    for (const double factor : {1.0, 2.0, 5.0})
        if (factor * power >= rough * (1 - 1e-9)) {
            step = factor * power;
            break;
        }
    std::vector<double> out;
    for (double k = std::floor(low / step + 1e-9); (k - 1) * step < high - 1e-9 * step; k++)
        out.push_back(k * step);
    return out;
}

std::string legend_html(const std::vector<Series>& series) {
    std::string out;
    for (const Series& s : series)
        if (!s.label.empty())
            out += format("<span class=\"legend\"><i style=\"background: var(--c%d)\"></i>%s</span>",
                          s.colour, html_text(s.label).c_str());
    return out;
}

std::string chart_html(const Chart& chart) {
    std::vector<Series> all;
    for (const Series& s : chart.series) all.push_back(thinned(s));
    Axis ax{0, 0, LEFT, WIDTH - RIGHT}, ay{0, 0, HEIGHT - BOTTOM, TOP};
    if (!ranges(all, chart.from_zero, ax, ay)) return "";
    const std::vector<double> y_ticks = round_ticks(ay.low, ay.high, 4);
    ay.low = y_ticks.front();
    ay.high = y_ticks.back();
    std::string svg = format("<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"%s\" data-c=\"%s\">\n",
                             WIDTH, HEIGHT, html_text(chart.title).c_str(), readings(all, ax).c_str());
    for (const double v : y_ticks)
        svg += format(
            "<line class=\"grid\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/><text class=\"tick\" "
            "text-anchor=\"end\" x=\"%d\" y=\"%.1f\">%s</text>",
            LEFT, WIDTH - RIGHT, ay.at(v), ay.at(v), LEFT - 6, ay.at(v) + 3.5,
            number(v, chart.percent, ay.high - ay.low).c_str());
    for (const double v : round_ticks(ax.low, ax.high, 6))
        if (v >= ax.low && v <= ax.high)
            svg += format("<text class=\"tick\" text-anchor=\"%s\" x=\"%.1f\" y=\"%d\">%s</text>",
                          ax.at(v) > WIDTH - RIGHT - 12 ? "end" : "middle", ax.at(v), HEIGHT - 6,
                          number(v, false, ax.high - ax.low).c_str());
    svg += "\n";
    for (const Series& s : all) svg += curve(s, ax, ay);
    svg += "</svg>";
    const std::string legend = chart.legend ? legend_html(all) : "";
    return "<figure><figcaption><b>" + html_text(chart.title) + "</b>" + legend + "</figcaption>\n" + svg +
           (chart.note.empty() ? "" : "<p class=\"note\">" + html_text(chart.note) + "</p>") + "</figure>\n";
}

std::string chart_style() {
    return R"css(.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(20rem, 100%), 1fr)); gap: 1.2rem 1.6rem; }
figure { margin: 0; position: relative; min-width: 0; }
figcaption { display: flex; flex-wrap: wrap; gap: .1rem .8rem; font-size: .85rem; align-items: baseline; }
.legend { color: var(--soft); white-space: nowrap; margin-right: .8rem; }
.legend i { display: inline-block; width: .9em; height: .25em; border-radius: 2px; margin-right: .35em; vertical-align: middle; }
figure .note { margin: .1rem 0 0; }
svg { width: 100%; height: auto; display: block; touch-action: pan-y; }
svg .grid { stroke: var(--line); stroke-width: 1; }
svg .tick { fill: var(--soft); font: 10px system-ui, sans-serif; }
svg .curve { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
svg .curve.c1, svg .curve.c4 { stroke-dasharray: 7 3; } /* so that curves which lie on each other are both seen */
svg .curve.c2, svg .curve.c5 { stroke-dasharray: 2 2.5; }
svg .pale { fill: none; stroke-width: 1; opacity: .3; }
svg .band { opacity: .16; }
svg .at { stroke: var(--soft); stroke-width: 1; stroke-dasharray: 2 2; }
.reading { position: absolute; right: .5rem; top: 1.6rem; background: var(--paper); border: 1px solid var(--line); border-radius: 4px; padding: .1rem .4rem; font: 11px/1.4 ui-monospace, monospace; white-space: pre; pointer-events: none; display: none; }
)css";
}

std::string chart_script() {
    return format(R"html(<script>
document.querySelectorAll("svg[data-c]").forEach(svg => {
  const data = JSON.parse(svg.dataset.c), reading = document.createElement("div");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
  reading.className = "reading";
  line.setAttribute("class", "at");
  line.setAttribute("y1", %d);
  line.setAttribute("y2", %d);
  svg.after(reading);
  svg.onpointermove = e => {
    const box = svg.getBoundingClientRect(), at = (e.clientX - box.left) / box.width * %d;
    const x = data.low + (at - %d) / %d * (data.high - data.low);
    let nearest = null;
    for (const s of data.series) for (const v of s.x) if (nearest === null || Math.abs(v - x) < Math.abs(nearest - x)) nearest = v;
    if (nearest === null) return;
    const rows = data.series.map(s => [s.label, s.y[s.x.indexOf(nearest)]]).filter(r => r[1] !== undefined);
    reading.textContent = `${nearest}` + rows.map(r => `\n${r[0] ? r[0] + " " : ""}${r[1]}`).join("");
    reading.style.display = "block";
    const px = %d + (nearest - data.low) / (data.high - data.low) * %d;
    line.setAttribute("x1", px);
    line.setAttribute("x2", px);
    svg.append(line);
  };
  svg.onpointerleave = () => { reading.style.display = "none"; line.remove(); };
});
</script>
)html",
                  TOP, HEIGHT - BOTTOM, WIDTH, LEFT, WIDTH - LEFT - RIGHT, LEFT, WIDTH - LEFT - RIGHT);
}
