# rules.mk -- how .cu files are built, included by the Makefile: every kernel as host code for the tests (the emulation), and,
# where there is nvcc, for the GPU.
KERNELS_CU := $(wildcard kernels/*.cu)
TESTS_CU   := $(wildcard tests/test_*.cu)

# ---- the emulation: .cu as C++, one fiber per CUDA thread. Matrix products by matmul.cu in place of cuBLASLt ----
# (cublaslt_absent.cu)
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
	$(Q)$(CXX) -std=c++20 $(OPT) -g1 -Wall -Wextra -Wno-unknown-pragmas -I. -MMD -MP -c $< -o $@

# ---- the GPU: machine code for every CUDA_ARCH, and PTX of the first for what comes after them. wgmma (device/wgmma.h)
# exists in the code for 90a alone ----
NVCCFLAGS = -std=c++20 -O3 -lineinfo -I. --expt-relaxed-constexpr -Xcompiler -Wall,-Wextra $(if $(filter 90a,$(CUDA_ARCH)),-DBUILT_FOR_SM_90A) $(foreach a,$(CUDA_ARCH),-gencode \
    arch=compute_$(a),code=$(if $(filter $(firstword $(CUDA_ARCH)),$(a)),[sm_$(a)$(comma)compute_$(a)],sm_$(a)))
ifeq ($(CUDA),1)
  CUDA_HOME := $(patsubst %/bin/nvcc,%,$(realpath $(NVCC)))
  CUDA_OBJ  := $(patsubst %.cu,$(BUILD)/cuda/%.o,$(filter-out kernels/cublaslt_absent.cu,$(KERNELS_CU)))
  CUDA_LIBS := -L$(CUDA_HOME)/lib64 -Wl,-rpath,$(CUDA_HOME)/lib64 -lcublasLt -lcudart_static -ldl -lrt -lpthread
endif
$(BUILD)/cuda/%.o: %.cu
	@mkdir -p $(@D)
	@echo "NVCC $<"
	$(Q)$(NVCC) $(NVCCFLAGS) -MMD -MP -c $< -o $@

# Registers and spills of every kernel, or of those in FILES: make ptxas FILES=kernels/attention.cu
ptxas:
	@for f in $(or $(FILES),$(KERNELS_CU)); do $(NVCC) $(NVCCFLAGS) -Xptxas -v -c $$f -o /dev/null 2>&1 | c++filt -t; done | awk \
	    '/Compiling entry/ { split($$0, quoted, "\047"); name = quoted[2]; sub(/\(.*/, "", name); sub(/^void /, "", name); arch = quoted[4] } \
	    /bytes stack frame/ { spill = $$5 } \
	    / Used / { match($$0, /Used [0-9]+/); printf "%-7s %3d registers %4d bytes spilled  %s\n", arch, substr($$0, RSTART + 5), spill, name }'
.PHONY: ptxas

# ---- on a machine with a GPU ----
# The same tests, linked with the kernels as compiled by nvcc, and the benches. GoogleTest and the runtimes are linked statically, symbols
# are left out, the golden files come along: what was built here runs where there is a driver and cuBLASLt.
GPU_TEST_OBJ := $(patsubst %.cpp,$(BUILD)/%.o,$(wildcard tests/test_cuda_*.cpp)) $(TESTS_CU:%.cu=$(BUILD)/cuda/%.o)
GPU_PROGRAMS := $(addprefix $(BUILD)/,run_gpu_tests bench_cuda bench_model)
STATIC       := -static-libstdc++ -static-libgcc -Wl,-Bstatic -lgtest -lgtest_main -Wl,-Bdynamic
define static_link
	@echo "LINK $@"
	$(Q)$(CXX) $(CXXFLAGS) $(filter %.o,$^) $(filter %.a,$^) $(STATIC) $(CUDA_LIBS) -s -o $@
endef
$(BUILD)/run_gpu_tests: $(GPU_TEST_OBJ) $(CUDA_OBJ) $(BUILD)/engine.a
	$(static_link)
$(BUILD)/bench_cuda: $(BUILD)/cuda/tests/bench_cuda.o $(CUDA_OBJ) $(BUILD)/engine.a
	$(static_link)
ifeq ($(CUDA),1)
$(BUILD)/bench_model: $(BUILD)/tests/bench_model.o $(CUDA_OBJ) $(BUILD)/engine.a
	$(static_link)
BENCHES += $(BUILD)/bench_cuda
else
BENCHES := $(filter-out $(BUILD)/bench_model,$(BENCHES))
endif
# The bench as host code, to see that it runs; its times mean nothing.
$(BUILD)/bench_cuda_emulated: $(BUILD)/emulation/tests/bench_cuda.o $(EMULATION_OBJ) $(BUILD)/engine.a
	@echo "LINK $@"
	$(Q)$(CXX) $(CXXFLAGS) $^ -lgtest -lgtest_main -lpthread -o $@
ifeq ($(CUDA),1)
gpu-programs: $(GPU_PROGRAMS)
	@[ ! -d ../shared/fixtures ] || { rm -rf $(BUILD)/fixtures && cp -r ../shared/fixtures $(BUILD)/fixtures; }
else
gpu-programs:
	@echo "The programs for the GPU need nvcc and cuBLASLt, of which one is not here, or CUDA=0 was said."; exit 1
endif
# Tests, benches and compute-sanitizer, and one report of it all: gpu-report.txt. Where nothing can be built, by the programs that
# were built elsewhere. PARTS="tests bench": those alone (tests/gpu_report.sh).
gpu-report:
	@if [ "$(CUDA)" = 1 ] && $(HAVE_ALL); then $(MAKE) --no-print-directory gpu-programs; \
	else echo "nvcc, cuBLASLt, GoogleTest or another library is not here: running the programs that are"; ls $(GPU_PROGRAMS); fi
	tests/gpu_report.sh $(BUILD) gpu-report.txt $(PARTS)
# What share of deliberate mistakes in the kernels the tests catch, with what survives tried again under both sanitizers:
# make mutate [SAMPLE=100]
mutate-objects: $(EMULATION_OBJ) $(BUILD)/engine.a $(patsubst %.cpp,$(BUILD)/%.o,$(wildcard tests/test_cuda_*.cpp))
mutate: mutate-objects
	@for san in address thread; do $(MAKE) --no-print-directory SAN=$$san mutate-objects || exit 1; done
	tests/mutate.py $(BUILD) --address build-address --thread build-thread --sample $(or $(SAMPLE),100)
.PHONY: gpu-programs gpu-report mutate mutate-objects
