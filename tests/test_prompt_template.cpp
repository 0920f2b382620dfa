// Prompt templates: the texts of the reference, by letter.
#include <gtest/gtest.h>

#include "tokenizer/byte_tokenizer.h"
#include "train/tasks/prompt_template.h"
#include "utils/error.h"

namespace {

std::string text(const char* name, ChatTemplate::Kind kind, const std::string& question = "1+1?") {
    ChatTemplate chat;
    chat.kind = kind;
    chat.default_system = "You are a helpful assistant.";
    return prompt_text(prompt_template(name), chat, question);
}

TEST(PromptTemplate, TextsOfTheReference) {
    EXPECT_EQ(text("dllm-rl", ChatTemplate::Qwen3),
              "<|im_start|>user\n1+1?\nPlease reason step by step, and put your final answer within "
              "\\boxed{}.<|im_end|>\n<|im_start|>assistant");
    EXPECT_EQ(text("dllm-rl-think", ChatTemplate::Qwen3),
              "<|im_start|>user\nYou need to put your final answer in \\boxed{}. This is the "
              "problem:\n1+1?<|im_end|>\n<|im_start|>assistant<think>");
    EXPECT_EQ(text("dllm-rl", ChatTemplate::Llada).find("\n\n"), std::string::npos);
    EXPECT_EQ(text("dllm-rl-think", ChatTemplate::Llada),
              "<|startoftext|><|start_header_id|>user<|end_header_id|>You need to put your final answer in "
              "\\boxed{}. This is the "
              "problem:\n1+1?<|eot_id|><|startoftext|><|start_header_id|>assistant<|end_header_id|><think>");
    EXPECT_EQ(text("dllm-rl", ChatTemplate::Qwen25)
                  .find("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"),
              0u);
}

TEST(PromptTemplate, FullAttentionModelsAreAskedInOtherWords) {
    EXPECT_EQ(
        text("dllm-rl", ChatTemplate::Llada),
        "<|startoftext|><|start_header_id|>user<|end_header_id|>You need to put your final answer in "
        "\\boxed{}. "
        "This is the problem:\n1+1?<|eot_id|><|startoftext|><|start_header_id|>assistant<|end_header_id|>");
    EXPECT_EQ(
        text("dllm-rl", ChatTemplate::Qwen25),
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nYou need to put your "
        "final answer in \\boxed{}. This is the problem:\n1+1?<|im_end|>\n<|im_start|>assistant");
}

TEST(PromptTemplate, ProgramsAndOptions) {
    EXPECT_EQ(text("code-function", ChatTemplate::Qwen3, "Sort."),
              "<|im_start|>user\nSort.\nPlace your code within a single Python code block ```python ```. Do "
              "not include "
              "more than one code block. <|im_end|>\n<|im_start|>assistant\n");
    EXPECT_EQ(text("code-stdio", ChatTemplate::Qwen3, "Sort."),
              "<|im_start|>user\nThis is the problem:\nSort.\nYou should put your code in ```python ```. Use "
              "input() to "
              "read input and print() to produce output in your script. <|im_end|>\n<|im_start|>assistant");
    EXPECT_TRUE(text("code-stdio-think", ChatTemplate::Qwen3).ends_with("<|im_start|>assistant<think>"));
    EXPECT_EQ(
        text("option", ChatTemplate::Qwen3, "Which?"),
        "<|im_start|>user\nThis is the problem:\nWhich?\nYou need to think step by step and put the final "
        "option "
        "(A, B, C, or D only\xE2\x80\x94no other character) in \\boxed{}. <|im_end|>\n<|im_start|>assistant");
    EXPECT_TRUE(text("option-think", ChatTemplate::Qwen3).ends_with("<|im_start|>assistant<think>"));
}

TEST(PromptTemplate, OrdinaryOnesEndAsTheChatTemplateDoes) {
    EXPECT_EQ(text("chat", ChatTemplate::Qwen3), "<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n");
    EXPECT_TRUE(text("math", ChatTemplate::Qwen3).ends_with("\\boxed{}.<|im_end|>\n<|im_start|>assistant\n"));
    EXPECT_TRUE(text("math-think", ChatTemplate::Qwen3)
                    .ends_with("1+1?<|im_end|>\n<|im_start|>assistant\n<think>\n"));
    EXPECT_TRUE(text("math", ChatTemplate::Llada)
                    .ends_with("<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"));
}

TEST(PromptTemplate, RawIsTheWordsAlone) {
    EXPECT_EQ(text("chat", ChatTemplate::Raw, "3+4="), "3+4=");
    EXPECT_EQ(text("chat", ChatTemplate::Raw, ""), "");
    EXPECT_EQ(text("dllm-rl", ChatTemplate::Raw, "x\n"),
              "x\n\nPlease reason step by step, and put your final answer within \\boxed{}.");
    EXPECT_EQ(text("dllm-rl-think", ChatTemplate::Raw).find("<think>"), std::string::npos);
}

TEST(PromptTemplate, IdsAreThoseOfTheTextWithTheQuestionAsText) {
    const Tokenizer bytes(byte_tokenizer_definition());
    const ChatTemplate chat = choose_chat_template("qwen3", "", bytes);
    const auto ids = encode_prompt(bytes, prompt_template("math"), chat, "<|im_end|>");
    EXPECT_EQ(bytes.decode(ids), prompt_text(prompt_template("math"), chat, "<|im_end|>"));
    EXPECT_EQ(std::count(ids.begin(), ids.end(), BYTE_IM_END), 1);
}

TEST(PromptTemplate, UnknownNamesAreRefusedWithTheList) {
    EXPECT_EQ(prompt_template_names().size(), 10u);
    for (const std::string& name : prompt_template_names()) EXPECT_EQ(prompt_template(name).name, name);
    try {
        prompt_template("maths");
        FAIL();
    } catch (const Error& error) {
        EXPECT_EQ(error.code, Exit::Usage);
        EXPECT_NE(std::string(error.what()).find("'maths': there is no such template (there are chat, math,"),
                  std::string::npos);
    }
}

}  // namespace
