#include "inference/html.h"

#include "utils/error.h"

std::string html_text(std::string_view text) {
    std::string out;
    for (const char c : text)
        out += c == '<'   ? "&lt;"
               : c == '>' ? "&gt;"
               : c == '&' ? "&amp;"
               : c == '"' ? "&quot;"
                          : std::string(1, c);
    return out;
}

// Inside <script> a "</script>" in the data would end it, and U+2028 ends a line in old engines.
std::string script_json(const std::string& json) {
    std::string out;
    for (size_t i = 0; i < json.size(); i++) {
        const char c = json[i];
        if (c == '<' || c == '>' || c == '&')
            out += format("\\u%04x", unsigned(c));
        else if (json.compare(i, 3, "\xE2\x80\xA8") == 0 || json.compare(i, 3, "\xE2\x80\xA9") == 0)
            out += json[(i += 2)] == '\xA8' ? "\\u2028" : "\\u2029";
        else
            out += c;
    }
    return out;
}

static const char* STYLE = R"css(
:root { color-scheme: light dark; --ink: #1d2330; --paper: #fbfbf9; --line: #d8d8d2; --soft: #6b7280; --mask: #c9ccd3; --new: #1d4ed8;
  --c0: #1f5fbf; --c1: #c2570c; --c2: #0f7a55; --c3: #8a3ffc; --c4: #b8336a; --c5: #7a6a00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8ee; --paper: #14171f; --line: #333947; --soft: #98a1b3; --mask: #454c5c; --new: #8ab4ff;
  --c0: #79aefc; --c1: #f5a05a; --c2: #52c79a; --c3: #c3a1ff; --c4: #f58ab4; --c5: #d8c44c; } }
body { margin: 0 auto; max-width: 60rem; padding: 1.5rem; color: var(--ink); background: var(--paper); font: 15px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.1rem; margin: 0 0 .3rem; }
button, select { font: inherit; color: inherit; background: var(--paper); border: 1px solid var(--line); border-radius: 4px; padding: .1rem .6rem; }
)css";

std::string page_head(std::string_view title, std::string_view style) {
    return "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
           "content=\"width=device-width, initial-scale=1\">\n<title>" +
           html_text(title) + "</title>\n<style>" + STYLE + std::string(style) + "</style></head><body>\n";
}
