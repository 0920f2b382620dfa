#include <gtest/gtest.h>

#include "kernels/cuda_ops.h"
#include "kernels/device_select.h"

static Exit code_of(const std::string& wish) {
    try {
        make_ops(wish);
    } catch (const Error& e) {
        return e.code;
    }
    return Exit::Ok;
}

TEST(DeviceSelect, AutoFallsBackToTheCpuAndSaysSo) {
    if (cuda_device_count()) GTEST_SKIP() << "there is a GPU";
    std::string note = "before";
    EXPECT_EQ(make_ops("auto", &note)->device_name().substr(0, 3), "CPU");
    EXPECT_NE(note.find("computing on the CPU"), std::string::npos);
    EXPECT_EQ(make_ops("cpu", &note)->device_name().substr(0, 3), "CPU");
    EXPECT_EQ(note, "");
}

TEST(DeviceSelect, WhatIsNotThereIsAnErrorOfItsOwn) {
    EXPECT_EQ(code_of("cuda:99"), Exit::NoMemory);
    if (!cuda_device_count()) {
        EXPECT_EQ(code_of("cuda"), Exit::NoMemory);
    }
    for (const char* wish :
         {"", "gpu", "cuda:", "cuda:x", "cuda:1x", "cuda:-1", "cuda1", "CPU", "cuda:9999999999"})
        EXPECT_EQ(code_of(wish), Exit::Usage) << wish;
}
