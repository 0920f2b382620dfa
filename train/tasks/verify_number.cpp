#include "train/tasks/verify_number.h"

#include <algorithm>

namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool is_space(char c) { return c == ' ' || (c >= 9 && c <= 13); }

std::string_view trim(std::string_view text) {
    while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
    while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
    return text;
}

void replace_all(std::string& text, std::string_view what, std::string_view with) {
    for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + with.size()))
        text.replace(at, what.size(), with);
}

// The place after the brace that closes the one at `open`, or npos.
size_t after_closing(std::string_view text, size_t open) {
    int depth = 0;
    for (size_t i = open; i < text.size(); i++) {
        depth += text[i] == '{' ? 1 : text[i] == '}' ? -1 : 0;
        if (depth == 0) return i + 1;
    }
    return std::string_view::npos;
}

// Takes away what changes nothing in a number: typesetting, currency, percent, degrees.
std::string plain(std::string_view answer) {
    std::string text(answer);
    replace_all(text, "\xE2\x88\x92", "-");  // the minus sign of Unicode
    replace_all(text, "\xC2\xA0", " ");
    replace_all(text, "\xC2\xB0", "");
    for (const char* nothing :
         {"\\left", "\\right", "\\!", "\\displaystyle", "^\\circ", "^{\\circ}", "\\$", "$", "\\%", "%"})
        replace_all(text, nothing, "");
    for (const char* space : {"\\,", "\\;", "\\:", "\\ ", "~", "\\quad"}) replace_all(text, space, " ");
    for (const char* frac : {"\\dfrac", "\\tfrac", "\\cfrac"}) replace_all(text, frac, "\\frac");
    replace_all(text, "{,}", ",");
    return std::string(trim(text));
}

// `x = 5` and `k=2` are 5 and 2: drops a name and what equates it.
std::string_view without_name(std::string_view text) {
    const size_t equals = text.find('=');
    if (equals == std::string_view::npos) return text;
    const std::string_view name = trim(text.substr(0, equals));
    const bool is_name = !name.empty() && std::all_of(name.begin(), name.end(), is_letter);
    return is_name ? trim(text.substr(equals + 1)) : text;
}

// A unit behind a number: \text{...} or \mbox{...} with a power perhaps, or words after a space.
std::string_view without_unit(std::string_view text) {
    for (const char* wrapper : {"\\text{", "\\mbox{", "\\mathrm{", "\\textrm{"}) {
        const size_t at = text.find(wrapper);
        if (at == std::string_view::npos || at == 0) continue;
        size_t end = after_closing(text, at + std::string_view(wrapper).size() - 1);
        if (end == std::string_view::npos) continue;
        std::string_view rest = text.substr(end);
        if (rest.starts_with("^") && rest.size() == 2 && is_digit(rest[1])) rest = {};
        if (rest.starts_with("^{") && after_closing(rest, 1) == rest.size()) rest = {};
        if (trim(rest).empty()) return trim(text.substr(0, at));
    }
    size_t end = text.size();
    while (end > 0 && (is_letter(text[end - 1]) || text[end - 1] == ' ' || text[end - 1] == '/')) end--;
    const bool words = end > 0 && end < text.size() && text[end] == ' ' &&
                       (is_digit(text[end - 1]) || text[end - 1] == '}' || text[end - 1] == '.');
    return words ? trim(text.substr(0, end)) : text;
}

// Braces, bold type or a box around everything.
std::string_view unwrapped(std::string_view text) {
    for (bool again = true; again;) {
        again = false;
        text = trim(text);
        for (const char* wrapper :
             {"{", "\\mathbf{", "\\boldsymbol{", "\\text{", "\\mathrm{", "\\boxed{", "\\mbox{"}) {
            const std::string_view w = wrapper;
            if (!text.starts_with(w) || after_closing(text, w.size() - 1) != text.size()) continue;
            text = text.substr(w.size(), text.size() - w.size() - 1);
            again = true;
        }
    }
    return text;
}

// ---- the grammar of a number

class NumberParser {
  public:
    explicit NumberParser(std::string_view text) : text_(text) {}

    // whole := sign* value (('\times' | '\cdot') power of ten)?
    std::optional<Rational> whole(int depth = 0) {
        if (depth > 16) return {};
        const bool negative = sign();
        auto result = value(depth);
        skip();
        if (result && (take("\\times") || take("\\cdot"))) {
            skip();
            if (text_.substr(at_, 2) != "10") return {};
            const auto scale = value(depth);
            result = scale ? multiply(*result, *scale) : std::nullopt;
        }
        skip();
        take(".");
        skip();
        if (!result || at_ != text_.size()) return {};
        return negative ? subtract({0, 1}, *result) : result;
    }

  private:
    void skip() {
        while (at_ < text_.size() && is_space(text_[at_])) at_++;
    }
    bool take(std::string_view word) {
        if (!text_.substr(at_).starts_with(word)) return false;
        at_ += word.size();
        return true;
    }
    bool sign() {
        skip();
        const bool negative = take("-");
        if (!negative) take("+");
        skip();
        return negative;
    }

    // value := \frac | numeral (\frac | numeral '/' numeral)? ('/' numeral)? ('^' exponent)?
    std::optional<Rational> value(int depth) {
        if (take("\\frac")) return fraction(depth);
        bool integer = false;
        auto number = numeral(&integer);
        if (!number) return {};
        const size_t after = at_;
        skip();
        if (take("\\frac")) {  // mixed
            const auto part = integer ? fraction(depth) : std::nullopt;
            return part && part->numerator >= 0 ? add(*number, *part) : std::nullopt;
        }
        if (take("/")) {
            skip();
            const auto below = numeral(&integer);
            return below ? divide(*number, *below) : std::nullopt;
        }
        if (integer && at_ > after && at_ < text_.size() && is_digit(text_[at_])) {  // mixed: 1 4/5
            const auto above = numeral(&integer);
            skip();
            if (!above || !take("/")) return {};
            skip();
            const auto below = numeral(&integer);
            const auto part = below ? divide(*above, *below) : std::nullopt;
            return part ? add(*number, *part) : std::nullopt;
        }
        if (take("^")) {
            const auto exponent = argument(depth);
            if (!exponent || exponent->denominator != 1 || exponent->numerator > 200 ||
                exponent->numerator < -200)
                return {};
            return power(*number, int64_t(exponent->numerator));
        }
        at_ = after;
        return number;
    }

    // {number} or one digit
    std::optional<Rational> argument(int depth) {
        skip();
        if (at_ < text_.size() && is_digit(text_[at_])) return Rational{text_[at_++] - '0', 1};
        if (at_ == text_.size() || text_[at_] != '{') return {};
        const size_t end = after_closing(text_, at_);
        if (end == std::string_view::npos) return {};
        const auto inner = NumberParser(text_.substr(at_ + 1, end - at_ - 2)).whole(depth + 1);
        at_ = end;
        return inner;
    }
    std::optional<Rational> fraction(int depth) {
        const auto above = argument(depth), below = above ? argument(depth) : std::nullopt;
        return below ? divide(*above, *below) : std::nullopt;
    }

    // Digits with a decimal point, thousands separators in their places, and a decimal exponent.
    std::optional<Rational> numeral(bool* integer) {
        __int128 mantissa = 0;
        int digits = 0, decimals = 0, leading = 0;
        const auto digit = [&] {
            mantissa = mantissa * 10 + (text_[at_++] - '0');
            digits++;
        };
        while (at_ < text_.size() && is_digit(text_[at_]) && digits < 36) digit();
        leading = digits;
        if (leading >= 1 && leading <= 3) {
            const char separator = at_ < text_.size() ? text_[at_] : 0;
            while ((separator == ',' || separator == ' ') && thousands(separator) && digits < 33) {
                at_++;
                while (at_ < text_.size() && text_[at_] == ' ') at_++;
                for (int i = 0; i < 3; i++) digit();
            }
        }
        *integer = true;
        if (at_ < text_.size() && text_[at_] == '.' &&
            (digits > 0 || (at_ + 1 < text_.size() && is_digit(text_[at_ + 1])))) {
            at_++;
            while (at_ < text_.size() && is_digit(text_[at_]) && digits < 36) {
                digit();
                decimals++;
            }
            *integer = decimals == 0;
        }
        if (digits == 0 || (at_ < text_.size() && is_digit(text_[at_]))) return {};  // none, or too many
        const auto scale = power({10, 1}, -decimals);
        auto number = scale ? multiply({mantissa, 1}, *scale) : std::nullopt;
        return number ? with_exponent(*number, integer) : std::nullopt;
    }

    // Is what follows a separator and exactly three digits?
    bool thousands(char separator) const {
        size_t i = at_;
        if (i >= text_.size() || text_[i] != separator) return false;
        i++;
        while (i < text_.size() && text_[i] == ' ') i++;
        for (int k = 0; k < 3; k++) {
            if (i >= text_.size() || !is_digit(text_[i++])) return false;
        }
        return i >= text_.size() || (!is_digit(text_[i]) && text_[i] != '/');
    }

    std::optional<Rational> with_exponent(const Rational& number, bool* integer) {
        if (at_ + 1 >= text_.size() || (text_[at_] != 'e' && text_[at_] != 'E')) return number;
        size_t i = at_ + 1;
        const bool negative = text_[i] == '-';
        if (text_[i] == '-' || text_[i] == '+') i++;
        int exponent = 0, digits = 0;
        for (; i < text_.size() && is_digit(text_[i]) && digits < 3; digits++)
            exponent = exponent * 10 + (text_[i++] - '0');
        if (digits == 0) return number;
        at_ = i;
        *integer = false;
        const auto scale = power({10, 1}, negative ? -exponent : exponent);
        return scale ? multiply(number, *scale) : std::nullopt;
    }

    std::string_view text_;
    size_t at_ = 0;
};

std::string without_spaces(std::string_view text) {
    std::string out;
    for (const char c : text) {
        if (!is_space(c)) out += c;
    }
    return out;
}

}  // namespace

std::optional<std::string> extract_answer(std::string_view response, AnswerForm form) {
    if (form != AnswerForm::Hash) {
        const size_t box = response.rfind("\\boxed{");
        if (box != std::string_view::npos) {
            const size_t open = box + 6, end = after_closing(response, open);
            if (end == std::string_view::npos) return {};
            return std::string(response.substr(open + 1, end - open - 2));
        }
    }
    if (form != AnswerForm::Boxed) {
        const size_t hash = response.rfind("####");
        if (hash != std::string_view::npos) {
            const size_t end = std::min(response.find('\n', hash), response.size());
            return std::string(trim(response.substr(hash + 4, end - hash - 4)));
        }
    }
    return {};
}

std::optional<Rational> parse_number(std::string_view answer) {
    if (answer.size() > 200) return {};
    const std::string text = plain(answer);
    return NumberParser(without_unit(without_name(unwrapped(text)))).whole();
}

bool same_answer(std::string_view answer, std::string_view gold) {
    const auto a = parse_number(answer), b = parse_number(gold);
    if (a && b) return *a == *b;
    if (a || b) return false;
    const std::string left = plain(answer), right = plain(gold);
    return !right.empty() && without_spaces(unwrapped(left)) == without_spaces(unwrapped(right));
}
