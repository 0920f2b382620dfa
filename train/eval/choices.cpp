#include "train/eval/choices.h"

#include "utils/error.h"
#include "utils/json.h"
#include "utils/json_fields.h"

static int right_answer(const Json& record, const std::string& where, int n) {
    if (!has(record, "answer")) fail(Exit::BadFile, "%s: field 'answer' is missing", where.c_str());
    if (!record.at("answer").is_string()) return int(get_int(record, "answer", where, 0, n - 1));
    const std::string letter = get_string(record, "answer", where);
    if (letter.size() != 1 || letter[0] < 'A' || letter[0] >= 'A' + n)
        fail(Exit::BadFile, "%s: field 'answer' is \"%s\", expected an index from 0 or a letter from A to %c",
             where.c_str(), letter.c_str(), 'A' + n - 1);
    return letter[0] - 'A';
}

static ChoiceQuestion parse(const Json& record, const std::string& where) {
    if (!record.is_object()) fail(Exit::BadFile, "%s: is not an object", where.c_str());
    ChoiceQuestion q;
    q.question = get_string(record, "question", where);
    if (!has(record, "choices") || !record.at("choices").is_array())
        fail(Exit::BadFile, "%s: field 'choices' is missing (a list of texts)", where.c_str());
    for (const Json& choice : record.at("choices")) {
        if (!choice.is_string() || choice.get<std::string>().empty())
            fail(Exit::BadFile, "%s: field 'choices'[%zu] is %s, expected a text", where.c_str(),
                 q.choices.size(), choice.dump().c_str());
        q.choices.push_back(choice.get<std::string>());
    }
    if (q.choices.size() < 2 || q.choices.size() > 26)
        fail(Exit::BadFile, "%s: field 'choices' has %zu entries, expected 2 to 26", where.c_str(),
             q.choices.size());
    q.answer = right_answer(record, where, int(q.choices.size()));
    return q;
}

std::vector<ChoiceQuestion> read_choices(const std::string& path) {
    std::vector<ChoiceQuestion> out;
    read_data_file(
        path, [&](const Json& record, const std::string& where) { out.push_back(parse(record, where)); });
    if (out.empty()) fail(Exit::BadFile, "%s: holds no question", path.c_str());
    return out;
}
