# make            build every program for what this machine has        make test     build and run all tests
# make deps       install what is missing (apt)                        make bench    measure kernels and programs
# make CUDA=0     pretend there is no CUDA toolkit                      make format   clang-format every source
# make SAN=address|thread [test]   build under a sanitizer, in a build folder of its own       make V=1   print full commands
# make DEPS=0     never install anything: stop with the command to type instead                make clean
# make study      TraceRL beside other objectives, and larger blocks: three seeds of each, a table, runs/study/comparison.html
# make soak       stops and resumes a small run 100 times, compared with one that was left alone
# make fuzz SECONDS=60   every parser under clang's libFuzzer, that long each
# make gpu-report tests, benches and compute-sanitizer on a GPU, in one report        make ptxas, make mutate     see kernels/README.md
CXX      ?= g++
SAN      ?=
BUILD    ?= build$(if $(SAN),-$(SAN))
OPT      ?= $(if $(SAN),-O1,-O2)
Q        := $(if $(V),,@)
comma    := ,
SANFLAGS := $(if $(SAN),-fsanitize=$(SAN:address=address$(comma)undefined -fno-sanitize-recover=undefined) -fno-omit-frame-pointer)
CXXFLAGS += -std=c++20 $(OPT) -g1 -pthread -Wall -Wextra -fno-math-errno -I. $(SANFLAGS)
LDLIBS   += -lutf8proc
all:

# ---- what is on this machine: every line can be overridden, e.g. make CUDA=0 ----
HASH      := \#
probe      = $(shell printf '$(1)\n' | $(2) >/dev/null 2>&1 && echo 1 || echo 0)
BUILDS    := $(filter-out clean format deps,$(or $(MAKECMDGOALS),all))
NVCC      ?= $(firstword $(wildcard /usr/local/cuda/bin/nvcc) $(shell command -v nvcc))
CUDA      ?= $(if $(and $(BUILDS),$(NVCC),$(if $(SAN),,1)),$(call probe,$(HASH)include <cublasLt.h>\nint main() { return cublasLtGetVersion() == 0; },$(NVCC) -x cu - -lcublasLt -o /dev/null),0)
CUDA_ARCH ?= 80 90a
OPENBLAS  ?= $(if $(filter bench,$(BUILDS)),$(call probe,$(HASH)include <cblas.h>\nint main() { return openblas_get_num_threads() == 0; },$(CXX) -x c++ - -lopenblas -o /dev/null),0)
$(if $(BUILDS),$(info $(CXX)  CUDA=$(CUDA)$(if $(filter 1,$(CUDA)), ($(NVCC)$(comma) sm_$(subst $() ,$(comma) sm_,$(CUDA_ARCH))))  $(if $(SAN),SAN=$(SAN)  )build in $(BUILD)/))

# ---- what must be there: libraries from the distribution, installed by make itself where it may ----
DEPS     ?= 1
PACKAGES := g++ make libcli11-dev nlohmann-json3-dev libutf8proc-dev libgtest-dev
HAVE_ALL := printf '$(HASH)include <CLI/Version.hpp>\n$(HASH)include <nlohmann/json_fwd.hpp>\n$(HASH)include <gtest/gtest_prod.h>\n$(HASH)include <utf8proc.h>\nint main() { return !utf8proc_version(); }\n' | $(CXX) -x c++ - -lutf8proc -lgtest -o /dev/null >/dev/null 2>&1

deps:
	@missing=""; for p in $(PACKAGES); do \
	    dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$p"; done; \
	if ! command -v apt-get >/dev/null; then \
	    $(HAVE_ALL) && exit 0; \
	    echo "This is no Debian or Ubuntu: install CLI11, nlohmann-json, utf8proc and GoogleTest, with their headers, and type make again."; exit 1; fi; \
	[ "$$missing" ] || { echo "All packages are installed: $(PACKAGES)"; exit 0; }; \
	[ "$$(id -u)" = 0 ] && sudo="" || sudo="sudo "; \
	command="$${sudo}apt-get update && $${sudo}apt-get install -y$$missing"; \
	if [ "$(DEPS)" = 0 ] || { [ "$$sudo" ] && ! sudo -n true 2>/dev/null; }; then \
	    echo "These packages are missing:$$missing. Type this, then make again:"; \
	    echo "    $$command"; exit 1; fi; \
	echo "Installing$$missing with apt-get (make DEPS=0 forbids this) ..."; mkdir -p $(BUILD); \
	$${sudo}apt-get update >$(BUILD)/deps.log 2>&1; \
	$${sudo}env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $$missing >>$(BUILD)/deps.log 2>&1 \
	    || { tail -5 $(BUILD)/deps.log; echo "apt-get failed (all of it: $(BUILD)/deps.log). When it can work, type:"; echo "    $$command"; exit 1; }

have_all:
	@$(HAVE_ALL) || { $(MAKE) --no-print-directory deps; }

# ---- sources: folders, not lists ----
PROGRAM_CPP := $(wildcard inference/infer.cpp weights_tools/convert.cpp train/programs/train_sft.cpp train/programs/train_tracerl.cpp train/eval/eval.cpp)
PROGRAMS    := $(PROGRAM_CPP:%.cpp=%)
BIN         := $(if $(SAN),$(BUILD)/)#                       programs stand in the root, sanitized ones in their build folder
BINARIES    := $(addprefix $(BIN),$(notdir $(PROGRAMS)))
LIB_CPP     := $(filter-out $(PROGRAM_CPP),$(wildcard $(addsuffix /*.cpp,utils kernels tokenizer model weights_tools inference train train/*)))
LIB_OBJ     := $(LIB_CPP:%.cpp=$(BUILD)/%.o)
TEST_OBJ    := $(patsubst %.cpp,$(BUILD)/%.o,$(wildcard tests/test_*.cpp))
BENCHES     := $(patsubst tests/%.cpp,$(BUILD)/%,$(wildcard tests/bench_*.cpp))

# How .cu files are built. Sets EMULATION_OBJ (every kernel as host code, for the tests) and, where CUDA=1, CUDA_OBJ and
# CUDA_LIBS (for the programs).
-include kernels/device/rules.mk
$(EMULATION_OBJ) $(CUDA_OBJ): $(BUILD)/flags | have_all

all: $(BINARIES)

# Objects depend on the flags they were made with: CUDA=0 after CUDA=1, or another OPT, rebuilds what it must. (Not CXXFLAGS
# itself, to which some targets add their own, and which what they depend on would see.)
FLAGS := $(CXXFLAGS)
$(BUILD)/flags: always
	@mkdir -p $(BUILD); echo '$(FLAGS)' | cmp -s - $@ || echo '$(FLAGS)' >$@
$(BUILD)/link-flags: always
	@mkdir -p $(BUILD); echo '$(CUDA_OBJ) $(CUDA_LIBS)' | cmp -s - $@ || echo '$(CUDA_OBJ) $(CUDA_LIBS)' >$@

$(BUILD)/%.o: %.cpp $(BUILD)/flags | have_all
	@mkdir -p $(@D)
	@echo "CXX  $<"
	$(Q)$(CXX) $(CXXFLAGS) -MMD -MP -c $< -o $@

# The inner kernels, once per instruction set; which of them runs is chosen at run time. A fused multiply-add is spelled out
# where it is meant, and GCC 12 warns of its own AVX-512 header.
SIMD_FLAGS = -O3 -ffp-contract=off -Wno-uninitialized -Wno-maybe-uninitialized
$(BUILD)/kernels/simd_%.o: CXXFLAGS += $(SIMD_FLAGS)
ifeq ($(shell uname -m),x86_64)
$(BUILD)/kernels/simd_avx2.o: CXXFLAGS += -mavx2 -mfma
$(BUILD)/kernels/simd_avx512.o: CXXFLAGS += -mavx2 -mfma -mavx512f -mavx512bw -mavx512vl -mavx512dq
endif

# Everything but the programs' own files: a program or test links what it uses of it.
$(BUILD)/engine.a: $(LIB_OBJ)
	$(Q)rm -f $@ && ar rcs $@ $^

define link
	@echo "LINK $@"
	$(Q)$(CXX) $(CXXFLAGS) $(filter %.o,$^) $(filter %.a,$^) $(LDLIBS) -o $@
endef
define program
$(BIN)$(notdir $(1)): $(BUILD)/$(1).o $(CUDA_OBJ) $(BUILD)/engine.a $(BUILD)/link-flags
	$$(link)
endef
$(foreach p,$(PROGRAMS),$(eval $(call program,$(p))))
$(BINARIES): LDLIBS += $(CUDA_LIBS)

$(BUILD)/run_tests: $(TEST_OBJ) $(EMULATION_OBJ) $(BUILD)/engine.a
	$(link)
$(BUILD)/run_tests: LDLIBS += -lgtest -lgtest_main
test: all $(BUILD)/run_tests
	@PROGRAMS=$(or $(BIN),./) tests/run.sh $(BUILD)/test.log $(if $(filter thread,$(SAN)),setarch -R )./$(BUILD)/run_tests

study: all
	@train/study.sh runs/study 1 2 3
soak: all
	@tests/soak.sh $(or $(BIN),./)train_tracerl 100

$(BUILD)/bench_%: $(BUILD)/tests/bench_%.o $(BUILD)/engine.a
	$(link)
$(BUILD)/bench_%: LDLIBS += $(if $(filter 1,$(OPENBLAS)),-lopenblas)
$(BUILD)/tests/bench_%.o: CXXFLAGS += -DOPENBLAS=$(OPENBLAS)
bench: all $(BENCHES)
	@for b in $(BENCHES); do echo "== $$b"; ./$$b || exit 1; done
	@echo "== tests/bench_peers.sh"; PROGRAMS=$(or $(BIN),./) tests/bench_peers.sh $(BUILD)

# ---- fuzzing, by clang's libFuzzer: every parser for SECONDS, from tests/seeds/ and what build-fuzz/corpus/ has collected ----
SECONDS ?= 60
FUZZERS := $(patsubst tests/%.cpp,%,$(wildcard tests/fuzz_*.cpp))
$(BUILD)/parsers.a: $(patsubst %.cpp,$(BUILD)/%.o,$(filter-out utils/cli.cpp,$(filter utils/% tokenizer/% model/% weights_tools/%,$(LIB_CPP))))
	$(Q)rm -f $@ && ar rcs $@ $^
$(BUILD)/fuzz_%: $(BUILD)/tests/fuzz_%.o $(BUILD)/parsers.a
	$(link)
$(BUILD)/fuzz_%: LDLIBS += -fsanitize=fuzzer
fuzz:
	@command -v clang++ >/dev/null || { echo "make fuzz needs clang: apt-get install -y clang"; exit 1; }
	@$(MAKE) --no-print-directory CXX=clang++ BUILD=build-fuzz SAN="fuzzer-no-link,address,undefined -fno-sanitize=vptr" OPT="-O1 -fno-sanitize-recover=undefined" \
	    CUDA=0 $(FUZZERS:%=build-fuzz/%)
	@cd build-fuzz && for f in $(FUZZERS); do mkdir -p corpus/$$f ../tests/seeds/$$f; echo "== $$f"; \
	    ./$$f -max_total_time=$(SECONDS) -max_len=65536 -timeout=10 -verbosity=0 -print_final_stats=1 corpus/$$f ../tests/seeds/$$f || exit 1; done

format:
	clang-format -i $$(git ls-files '*.h' '*.cpp' '*.cu')
clean:
	rm -rf build build-* $(notdir $(PROGRAMS))
.PHONY: all always bench clean deps format fuzz have_all soak study test
.SECONDARY:
-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
