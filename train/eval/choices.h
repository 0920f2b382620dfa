// choices.h -- multiple choice: questions with given answers, of which the likeliest is the model's.
#pragma once
#include <string>
#include <vector>

struct ChoiceQuestion {
    std::string question;
    std::vector<std::string> choices;
    int answer = 0;  // index of the right one
};

// A JSON array or JSON lines of `question`, `choices` (a list of texts, at least two) and `answer` (an index
// from 0, or a letter from A). Throws Error(BadFile) that names record and field.
std::vector<ChoiceQuestion> read_choices(const std::string& path);
