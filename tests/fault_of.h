// fault_of.h -- what is wrong, as an Error says it.
#pragma once
#include <gtest/gtest.h>

#include <string>

#include "utils/error.h"

// The message of the Error that f() throws, whose code has to be this one; "" where it throws none.
template <class F>
std::string fault_of(Exit code, F f) {
    try {
        f();
    } catch (const Error& e) {
        EXPECT_EQ(e.code, code) << e.what();
        return e.what();
    }
    return "";
}
