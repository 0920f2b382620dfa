// prompt_template.h -- how a question is put to a model: the words around it, and how the answer is opened.
//
//   chat           the question alone
//   math           the question, then "Please reason step by step, and put your final answer within \boxed{}."
//   math-think     "You need to put your final answer in \boxed{}. ...", and the answer opens with <think>
//   dllm-rl        math as the reference code (Gen-Verse/dLLM-RL) has it: no line end after the opening of the answer;
//                  Dream and LLaDA are asked in the words of math-think
//   dllm-rl-think  math-think as there
//   code-function  a Python function in one code block
//   code-stdio     a Python script that reads input() and prints, code-stdio-think: after a thought
//   option         the letter of an option in \boxed{}, option-think: after a thought
//
// The reference's Jinja templates end in a line end that Jinja strips, so its models were trained without it.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/chat_template.h"

struct PromptTemplate {
    std::string name;
    std::string before, after;  // around the question
    bool think = false;         // the answer opens with <think>
    bool bare = false;          // the reference's headers: no line ends after them
};

std::vector<std::string> prompt_template_names();
PromptTemplate prompt_template(const std::string& name);  // Error(Usage) where there is none

// The prompt as text and as ids; special tokens in the question are text. With the raw chat template: only the words.
std::string prompt_text(const PromptTemplate& prompt, const ChatTemplate& chat, std::string_view question);
std::vector<int> encode_prompt(const Tokenizer& tokenizer, const PromptTemplate& prompt,
                               const ChatTemplate& chat, std::string_view question);
