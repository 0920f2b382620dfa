# rules.mk -- how .cu files are built, included by the Makefile: every kernel as host code for the tests (the emulation), and,
# where there is nvcc, for the GPU.
KERNELS_CU := $(wildcard kernels/*.cu)
TESTS_CU   := $(wildcard tests/test_*.cu)
ifneq ($(OPENMP),1)
  CXXFLAGS += -Wno-unknown-pragmas
endif

# ---- the emulation: .cu as C++, one fiber per CUDA thread. Matrix products by matmul.cu in place of cuBLASLt ----
EMULATED_CU   := $(filter-out kernels/matmul_cublaslt.cu,$(KERNELS_CU)) $(TESTS_CU)
EMULATION_OBJ := $(EMULATED_CU:%.cu=$(BUILD)/emulation/%.o) $(BUILD)/kernels/device/cpu_device.o
$(BUILD)/emulation/%.o: %.cu
	@mkdir -p $(@D)
	@echo "EMU  $<"
	$(Q)$(CXX) $(CXXFLAGS) -Wno-unknown-pragmas -MMD -MP -x c++ -c $< -o $@
# the scheduler is never sanitized: it tells the sanitizers about the fibers itself
$(BUILD)/kernels/device/cpu_device.o: kernels/device/cpu_device.cpp
	@mkdir -p $(@D)
	@echo "CXX  $<"
	$(Q)$(CXX) -std=c++20 $(OPT) -g -Wall -Wextra -Wno-unknown-pragmas -I. -MMD -MP -c $< -o $@
