#include "train/tasks/prompt_template.h"

#include "utils/error.h"

namespace {

const std::vector<PromptTemplate>& table() {
    static const std::vector<PromptTemplate> all = [] {
        const std::string after = "\nPlease reason step by step, and put your final answer within \\boxed{}.";
        const std::string before = "You need to put your final answer in \\boxed{}. This is the problem:\n";
        const std::string problem = "This is the problem:\n";
        const std::string function =
            "\nPlace your code within a single Python code block ```python ```. Do not include more than one "
            "code "
            "block. ";
        const std::string script =
            "\nYou should put your code in ```python ```. Use input() to read input and print() to produce "
            "output in "
            "your script. ";
        const std::string letter =
            "\nYou need to think step by step and put the final option (A, B, C, or D only\u2014no other "
            "character) "
            "in \\boxed{}. ";
        return std::vector<PromptTemplate>{
            {"chat", "", "", false, false},
            {"math", "", after, false, false},
            {"math-think", before, "", true, false},
            {"dllm-rl", "", after, false, true},
            {"dllm-rl-think", before, "", true, true},
            {"code-function", "", function, false, false},
            {"code-stdio", problem, script, false, true},
            {"code-stdio-think", problem, script, true, true},
            {"option", problem, letter, false, true},
            {"option-think", problem, letter, true, true},
        };
    }();
    return all;
}

std::vector<ChatPart> parts_of(const PromptTemplate& prompt, const ChatTemplate& chat,
                               std::string_view question) {
    // The reference asks Dream and LLaDA as it asks a model that thinks.
    const bool full_attention = chat.kind == ChatTemplate::Qwen25 || chat.kind == ChatTemplate::Llada;
    if (prompt.name == "dllm-rl" && full_attention) {
        PromptTemplate asked = prompt_template("dllm-rl-think");
        asked.think = false;
        return parts_of(asked, chat, question);
    }
    const std::string words = prompt.before + std::string(question) + prompt.after;
    std::vector<ChatPart> parts;
    if (prompt.bare && chat.kind == ChatTemplate::Llada) {
        // not LLaDA's own template: no blank lines after headers, and a second begin-of-text
        parts = {{"<|startoftext|><|start_header_id|>user<|end_header_id|>", false},
                 {words, true},
                 {"<|eot_id|><|startoftext|><|start_header_id|>assistant<|end_header_id|>", false}};
    } else {
        Message message;
        message.role = "user";
        message.content = words;
        parts = render_chat(chat, {message}, {});
        if (prompt.bare && !parts.empty() && !parts.back().said && parts.back().text.ends_with("\n"))
            parts.back().text.pop_back();
    }
    if (prompt.think && chat.kind != ChatTemplate::Raw)
        parts.push_back({prompt.bare ? "<think>" : "<think>\n", false});
    return parts;
}

}  // namespace

std::vector<std::string> prompt_template_names() {
    std::vector<std::string> names;
    for (const PromptTemplate& prompt : table()) names.push_back(prompt.name);
    return names;
}

PromptTemplate prompt_template(const std::string& name) {
    std::string names;
    for (const PromptTemplate& prompt : table()) {
        if (prompt.name == name) return prompt;
        names += (names.empty() ? "" : ", ") + prompt.name;
    }
    fail(Exit::Usage, "prompt template '%s': there is no such template (there are %s)", name.c_str(),
         names.c_str());
}

std::string prompt_text(const PromptTemplate& prompt, const ChatTemplate& chat, std::string_view question) {
    std::string out;
    for (const ChatPart& part : parts_of(prompt, chat, question)) out += part.text;
    return out;
}

std::vector<int> encode_prompt(const Tokenizer& tokenizer, const PromptTemplate& prompt,
                               const ChatTemplate& chat, std::string_view question) {
    return encode_parts(tokenizer, parts_of(prompt, chat, question));
}
