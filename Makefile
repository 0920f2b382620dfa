# make            build every program for what this machine has        make test     build and run all tests
# make deps       install what is missing (apt)                        make bench    measure kernels and programs
# make CUDA=0     pretend there is no CUDA toolkit                      make format   clang-format every source
# make SAN=address|thread [test]   build under a sanitizer, in a build folder of its own       make V=1   print full commands
# make DEPS=0     never install anything: stop with the command to type instead                make clean
CXX      ?= g++
SAN      ?=
BUILD    ?= build$(if $(SAN),-$(SAN))
OPT      ?= -O2
, := ,
SANFLAGS := $(if $(filter address,$(SAN)),-fsanitize=address$(,)undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer,$(if $(SAN),-fsanitize=$(SAN)))
CXXFLAGS += -std=c++20 $(OPT) -g -Wall -Wextra -fno-math-errno -I. $(SANFLAGS)
LDLIBS   += -lutf8proc
Q        := $(if $(V),,@)

# ---- what is on this machine: each line can be overridden, e.g. make NCCL=0 ----
HASH   := \#
probe   = $(shell printf '$(1)' | $(2) >/dev/null 2>&1 && echo 1 || echo 0)
NVCC   ?= $(firstword $(wildcard /usr/local/cuda/bin/nvcc) $(shell command -v nvcc))
CUDA   ?= $(if $(SAN),0,$(if $(NVCC),1,0))
OPENMP ?= $(if $(filter thread,$(SAN)),0,$(call probe,int main() { return 0; },$(CXX) -fopenmp -x c++ - -o /dev/null))
ifeq ($(OPENMP),1)
  CXXFLAGS += -fopenmp
endif

# ---- sources: folders, not lists ----
PROGRAM_CPP := inference/infer.cpp weights_tools/convert.cpp train/train_sft.cpp train/train_tracerl.cpp train/eval.cpp
PROGRAM_CPP := $(wildcard $(PROGRAM_CPP))
PROGRAMS    := $(notdir $(PROGRAM_CPP:%.cpp=%))
LIB_CPP     := $(filter-out $(PROGRAM_CPP),$(wildcard utils/*.cpp kernels/*.cpp tokenizer/*.cpp model/*.cpp weights_tools/*.cpp inference/*.cpp train/*.cpp))
TESTS_CPP   := $(wildcard tests/test_*.cpp)
LIB_OBJ     := $(LIB_CPP:%.cpp=$(BUILD)/%.o)
include kernels/device/rules.mk

all: $(PROGRAMS)

$(BUILD)/%.o: %.cpp
	@mkdir -p $(@D)
	@echo "CXX  $<"
	$(Q)$(CXX) $(CXXFLAGS) -MMD -MP -c $< -o $@

define program
$(notdir $(1:%.cpp=%)): $(BUILD)/$(1:%.cpp=%).o $(LIB_OBJ)
	@echo "LINK $$@"
	$$(Q)$$(CXX) $$(CXXFLAGS) $$^ $$(LDLIBS) -o $$@
endef
$(foreach p,$(PROGRAM_CPP),$(eval $(call program,$(p))))

$(BUILD)/run_tests: $(TESTS_CPP:%.cpp=$(BUILD)/%.o) $(LIB_OBJ) $(EMULATION_OBJ)
	@echo "LINK $@"
	$(Q)$(CXX) $(CXXFLAGS) $^ -lgtest -lgtest_main -lpthread $(LDLIBS) -o $@
test: all $(BUILD)/run_tests
	$(Q)$(if $(filter thread,$(SAN)),setarch -R) ./$(BUILD)/run_tests
clean:
	rm -rf build build-* $(PROGRAMS)
format:
	clang-format -i $(shell git ls-files '*.h' '*.cpp' '*.cu' '*.cuh')
.PHONY: all test clean format
-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
