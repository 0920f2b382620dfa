// html.h -- what every page the programs write is made of: one file, no network, light and dark.
#pragma once
#include <string>
#include <string_view>

std::string html_text(std::string_view text);      // for the text of an element or a quoted attribute
std::string script_json(const std::string& json);  // for a <script>: nothing in it can end one
// From <!doctype> to the open <body>: colours (--ink --paper --line --soft --mask --new, --c0 ... --c5 for
// curves), type, and `style` after them.
std::string page_head(std::string_view title, std::string_view style);
