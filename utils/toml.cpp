#include "utils/toml.h"

#include <cctype>
#include <cstdlib>
#include <set>

#include "utils/error.h"
#include "utils/words.h"

namespace {
constexpr int MAX_DEPTH = 8;  // arrays in arrays

bool is_bare(char c) { return isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '-'; }

void append_utf8(std::string& out, uint32_t code) {
    if (code < 0x80) {
        out += char(code);
    } else if (code < 0x800) {
        out += {char(0xc0 | code >> 6), char(0x80 | (code & 63))};
    } else if (code < 0x10000) {
        out += {char(0xe0 | code >> 12), char(0x80 | (code >> 6 & 63)), char(0x80 | (code & 63))};
    } else {
        out += {char(0xf0 | code >> 18), char(0x80 | (code >> 12 & 63)), char(0x80 | (code >> 6 & 63)),
                char(0x80 | (code & 63))};
    }
}

// A recursive descent over the text. A fault throws its message; the caller notes the line and goes on with
// the next.
class Parser {
  public:
    explicit Parser(std::string_view text) : text_(text) {}
    bool at_end() const { return at_ >= text_.size(); }
    int line() const { return line_; }

    // Spaces, comments and newlines.
    void skip_blank() {
        for (;;) {
            skip_spaces();
            if (peek() == '\n')
                advance();
            else if (!skip_comment())
                return;
        }
    }

    void skip_line() {
        while (!at_end() && peek() != '\n') at_++;
    }

    bool at_section() const { return peek() == '['; }

    void section() {
        advance();
        if (peek() == '[') throw std::string("arrays of tables ([[...]]) are not supported");
        key();
        if (peek() != ']') throw std::string("a section is [name]");
        advance();
        end_of_line();
    }

    // The last part of a possibly dotted key.
    std::string key() {
        for (;;) {
            skip_spaces();
            std::string part;
            if (peek() == '"' || peek() == '\'') {
                part = string(false);
            } else {
                while (is_bare(peek())) part += text_[at_++];
            }
            if (part.empty()) throw std::string("expected a key");
            skip_spaces();
            if (peek() != '.') return part;
            advance();
        }
    }

    TomlValue assigned() {
        if (peek() != '=') throw std::string("expected key = value");
        advance();
        skip_spaces();
        TomlValue result = value(0);
        end_of_line();
        return result;
    }

  private:
    std::string_view text_;
    size_t at_ = 0;
    int line_ = 1;

    char peek(size_t ahead = 0) const { return at_ + ahead < text_.size() ? text_[at_ + ahead] : '\0'; }
    void advance() {
        if (peek() == '\n') line_++;
        at_++;
    }
    void skip_spaces() {
        while (peek() == ' ' || peek() == '\t' || (peek() == '\r' && peek(1) == '\n')) at_++;
    }
    bool skip_comment() {
        if (peek() != '#') return false;
        skip_line();
        return true;
    }
    void end_of_line() {
        skip_spaces();
        skip_comment();
        if (!at_end() && peek() != '\n') throw format("unexpected '%c' after the value", peek());
    }

    TomlValue value(int depth) {
        const char c = peek();
        if (c == '"' || c == '\'') return {TomlValue::String, string(true), {}};
        if (c == '[') return array(depth);
        if (c == '{') throw std::string("inline tables ({...}) are not supported");
        return scalar();
    }

    TomlValue array(int depth) {
        if (depth == MAX_DEPTH) throw format("arrays nested deeper than %d", MAX_DEPTH);
        TomlValue result = {TomlValue::Array, "", {}};
        advance();
        for (;;) {
            skip_blank();
            if (peek() == ']') break;
            result.items.push_back(value(depth + 1));
            skip_blank();
            if (peek() == ']') break;
            if (peek() != ',') throw std::string("expected , or ] in the array");
            advance();
        }
        advance();
        return result;
    }

    TomlValue scalar() {
        std::string word;
        while (is_bare(peek()) || peek() == '.' || peek() == '+' || peek() == ':') word += text_[at_++];
        if (word == "true" || word == "false") return {TomlValue::Bool, word, {}};
        std::string number;
        for (size_t i = 0; i < word.size(); i++) {
            const auto is_digit = [&](size_t j) {
                return j < word.size() && isdigit(static_cast<unsigned char>(word[j]));
            };
            if (word[i] == '_' && i > 0 && is_digit(i - 1) && is_digit(i + 1)) continue;
            number += word[i];
        }
        const std::string digits = number.substr(number.find_first_not_of("+-") == 1 ? 1 : 0);
        if (!digits.empty() && digits.find_first_not_of("0123456789") == std::string::npos)
            return {TomlValue::Integer, number, {}};
        const bool named = digits == "inf" || digits == "nan";
        const bool plain = digits.find_first_not_of("0123456789.eE+-") == std::string::npos;
        char* end = nullptr;
        strtod(number.c_str(), &end);
        if (!digits.empty() && (named || plain) && *end == '\0') return {TomlValue::Float, number, {}};
        if (word.empty())
            throw std::string(at_end() || peek() == '\n' ? "the value is missing" : "expected a value");
        throw format("'%s' is no value; strings need quotes: \"%s\"", word.c_str(), word.c_str());
    }

    std::string string(bool may_span_lines) {
        const char quote = peek();
        if (may_span_lines && peek(1) == quote && peek(2) == quote) return long_string(quote);
        const int opened = line_;
        std::string out;
        advance();
        while (peek() != quote) {
            if (at_end() || peek() == '\n')
                throw format("the string opened on line %d is not closed", opened);
            if (quote == '"' && peek() == '\\')
                escape(out);
            else
                out += text_[at_++];
        }
        advance();
        return out;
    }

    std::string long_string(char quote) {
        const int opened = line_;
        std::string out;
        at_ += 3;
        if (peek() == '\r' && peek(1) == '\n') at_++;
        if (peek() == '\n') advance();
        while (!(peek() == quote && peek(1) == quote && peek(2) == quote)) {
            if (at_end()) throw format("the string opened on line %d is not closed", opened);
            if (quote == '"' && peek() == '\\') {
                escape(out);
            } else {
                out += peek();
                advance();
            }
        }
        at_ += 3;
        return out;
    }

    void escape(std::string& out) {
        at_++;
        const char c = peek();
        advance();
        switch (c) {
            case 'n': out += '\n'; return;
            case 't': out += '\t'; return;
            case 'r': out += '\r'; return;
            case 'b': out += '\b'; return;
            case 'f': out += '\f'; return;
            case '"': out += '"'; return;
            case '\\': out += '\\'; return;
            case '\n':  // a line's end is taken away, and the blanks after it
                while (isspace(static_cast<unsigned char>(peek()))) advance();
                return;
            case 'u':
            case 'U': {
                const size_t n = c == 'u' ? 4 : 8;
                const std::string hex(text_.substr(at_, n));
                if (hex.size() != n || hex.find_first_not_of("0123456789abcdefABCDEF") != std::string::npos)
                    throw format("\\%c needs %zu hexadecimal digits", c, n);
                const uint32_t code = uint32_t(strtoul(hex.c_str(), nullptr, 16));
                if (code > 0x10ffff || (code >= 0xd800 && code < 0xe000))
                    throw std::string("no such character");
                append_utf8(out, code);
                at_ += n;
                return;
            }
        }
        throw format("unknown escape \\%c in a string (a literal string has single quotes)", c);
    }
};
}  // namespace

std::vector<TomlItem> parse_toml(std::string_view text, const std::string& where,
                                 std::vector<std::string>& faults) {
    std::vector<TomlItem> items;
    std::set<std::string> seen;
    if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);
    if (text.find('\0') != text.npos) {
        faults.push_back(where + ": is not a text file (it holds a zero byte)");
        return items;
    }
    Parser parser(text);
    for (;;) {
        parser.skip_blank();
        if (parser.at_end()) return items;
        const int line = parser.line();
        try {
            if (parser.at_section()) {
                parser.section();
                continue;
            }
            const std::string key = parser.key();
            TomlValue value = parser.assigned();
            if (!seen.insert(key).second) throw format("key '%s' is set twice", key.c_str());
            items.push_back({key, line, std::move(value)});
        } catch (const std::string& fault) {
            faults.push_back(format("%s:%d: %s", where.c_str(), line, fault.c_str()));
            parser.skip_line();
        }
    }
}

std::map<std::string, std::string> toml_texts(std::string_view text) {
    std::map<std::string, std::string> out;
    std::vector<std::string> faults;
    for (const TomlItem& item : parse_toml(text, "", faults)) {
        std::string value = item.value.text;
        for (const TomlValue& v : item.value.items) value += (value.empty() ? "" : ",") + v.text;
        out[hyphens(item.key)] = value;
    }
    return out;
}

std::string toml_string(std::string_view text) {
    std::string out = "\"";
    for (const char c : text) {
        if (c == '"' || c == '\\')
            out += {'\\', c};
        else if (c == '\n')
            out += "\\n";
        else if (c == '\t')
            out += "\\t";
        else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
            out += format("\\u%04x", c);
        else
            out += c;
    }
    return out + "\"";
}
