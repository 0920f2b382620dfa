#include "inference/engine.h"

#include <algorithm>
#include <climits>

#include "inference/scheduler.h"
#include "model/packed_weights.h"

using Clock = std::chrono::steady_clock;

static double seconds(Clock::time_point from, Clock::time_point to) {
    return std::chrono::duration<double>(to - from).count();
}

class Engine::Implementation {
  public:
    Implementation(Ops& ops, const ModelConfig& config, const Parameters& weights, const EngineLimits& limits,
                   int n_ids, Arena& arena)
        : ops_(ops),
          config_(config),
          limits_(limits),
          n_ids_(n_ids),
          weights_(ops, config, weights, arena),
          network_(ops, config, weights_.view(), arena, limits.max_rows, limits.max_rows, &cache_),
          slots_(limits.kv_slots) {
        CHECK(limits.max_active > 0 && limits.max_rows > 0 && limits.kv_slots > 0,
              "limits of %d sequences, %d rows, %d slots", limits.max_active, limits.max_rows,
              limits.kv_slots);
        cache_.plan(arena, config, limits.kv_slots, network_.dtype());
        const int64_t N = limits.max_rows;
        const auto add = [&](Tensor* t, const char* name, int64_t n, const Tensor& record) {
            arena.add(t, name, n, record.cols, DType::I32);
        };
        add(&run_.targets, "reveal targets", N, records<RevealTarget>(nullptr, 1));
        add(&run_.blocks, "reveal blocks", limits.max_active, records<RevealBlock>(nullptr, 1));
        add(&run_.rows, "sampling options", N, records<SampleRow>(nullptr, 1));
        add(&run_.sampled, "sampled", N, records<Sampled>(nullptr, 1));
        arena.add(&guided_row_, "guided rows", 1, N, DType::I32);
        arena.add(&guidance_, "guidance", 1, N);
        arena.add(&run_.stops, "stop ids", 1, MOST_STOPS, DType::I32);
        arena.add(&run_.status, "reveal status", 1, STATUS_INTS, DType::I32);
    }

    std::vector<Trajectory> generate(std::span<const Request> requests, const Callbacks& callbacks);
    void check(std::span<const Request> requests) const;
    void check(const Request& request) const;
    void forget() {
        if (kept_.size) slots_.release(kept_.slot, kept_.size);
        kept_ = {};
    }

    Ops& ops_;
    const ModelConfig& config_;
    const EngineLimits limits_;
    const int n_ids_;
    KvCache cache_;
    PackedWeights weights_;
    Transformer network_;
    SlotAllocator slots_;
    Kept kept_;
    int64_t forward_passes_ = 0, forwarded_rows_ = 0;

  private:
    int run(Pass& pass);
    void upload(Pass& pass);
    static Trajectory finish(const Active& a);

    RevealRun run_;
    Tensor guided_row_, guidance_;  // (1, N) each
};

Engine::Engine(Ops& ops, const ModelConfig& config, const Parameters& weights, const EngineLimits& limits,
               int n_ids, Arena& arena)
    : implementation_(std::make_unique<Implementation>(ops, config, weights, limits, n_ids, arena)) {}
Engine::~Engine() = default;
std::vector<Trajectory> Engine::generate(std::span<const Request> requests, const Callbacks& callbacks) {
    return implementation_->generate(requests, callbacks);
}
void Engine::check(std::span<const Request> requests) const { implementation_->check(requests); }
void Engine::check(const Request& request) const { implementation_->check(request); }
void Engine::forget() { implementation_->forget(); }
int64_t Engine::forward_passes() const { return implementation_->forward_passes_; }
int64_t Engine::forwarded_rows() const { return implementation_->forwarded_rows_; }
const EngineLimits& Engine::limits() const { return implementation_->limits_; }

void check_request(const Request& r, const ModelConfig& config) {
    const auto refuse = [&](const std::string& why) { throw Error(Exit::Usage, why); };
    const std::vector<std::string> found = faults(r.options, config);
    if (!found.empty()) {
        std::string all;
        for (const std::string& f : found) all += (all.empty() ? "" : "; ") + f;
        refuse(all);
    }
    const Geometry geometry = geometry_of(config);
    if (r.prompt_ids.empty() && geometry == Geometry::Autoregressive)
        refuse("an autoregressive model needs a prompt of at least one token");
    if (geometry != Geometry::Autoregressive && (config.mask_id < 0 || config.mask_id >= config.V))
        refuse(format("the model has no mask id (%d)", config.mask_id));
    if (r.options.infill &&
        std::find(r.prompt_ids.begin(), r.prompt_ids.end(), config.mask_id) == r.prompt_ids.end())
        refuse(format("--infill: the text has no gap; write the mask token (id %d) for every token of one",
                      config.mask_id));
    for (const int id : r.prompt_ids)
        if (id < 0 || id >= config.V) refuse(format("prompt id %d: ids run from 0 to %d", id, config.V - 1));
    const int P = int(r.prompt_ids.size());
    const int64_t length = int64_t(P) + r.options.gen_length + r.options.block - 1;  // at most
    if (length > INT32_MAX / 2) refuse(format("--gen-length %d is too long", r.options.gen_length));
    const int positions = footprint(P, r.options, config).positions;
    if (positions > config.max_positions)
        refuse(format("a prompt of %d and --gen-length %d take %d positions, the model has %d", P,
                      r.options.gen_length, positions, config.max_positions));
}

void Engine::Implementation::check(std::span<const Request> requests) const {
    for (size_t i = 0; i < requests.size(); i++) try {
            check(requests[i]);
        } catch (const Error& e) {
            fail(e.code, "request %zu: %s", i, e.what());
        }
}

void Engine::Implementation::check(const Request& r) const {
    const auto refuse = [&](const std::string& why) { throw Error(Exit::NoMemory, why); };
    check_request(r, config_);
    const int P = int(r.prompt_ids.size());
    const Footprint need = footprint(P, r.options, config_);
    const int slots = need.shared_slots + need.own_slots;
    if (slots > limits_.kv_slots)
        refuse(format("a prompt of %d and --gen-length %d take %d slots, the cache has %d", P,
                      r.options.gen_length, slots, limits_.kv_slots));
    if (need.rows > limits_.max_rows)
        refuse(format("needs passes of %d rows, the limit is %d", need.rows, limits_.max_rows));
}

// Adds rows and targets that nobody reads, up to a size that other passes have too, so that a recording serves them all.
static void pad(TokenBatch& batch, int most) {
    const int T = std::min(size_bucket(batch.T()), most);
    const int N = std::max(std::min(coarse_bucket(batch.n_targets()), T), batch.n_targets());
    while (batch.T() < T) batch.add(0, 0, -1, {});
    batch.target_row.resize(size_t(N), 0);
}

void Engine::Implementation::upload(Pass& pass) {
    if (pass.repeats) {
        pad(pass.again, limits_.max_rows);
        network_.load(pass.again, Place::Again);
        pass.rows.resize(size_t(pass.again.n_targets()));
    }
    const auto put = [&](const Tensor& t, const auto& records) {
        if (!records.empty()) ops_.upload(t.row_range(0, int64_t(records.size())), records.data());
    };
    const std::vector<int> status = {1, 0, pass.repeats ? INT_MAX : 1, int(pass.blocks.size())};
    put(run_.targets, pass.targets);
    put(run_.blocks, pass.blocks);
    put(run_.rows, pass.rows);
    if (const int64_t n = int64_t(pass.guided.size())) {
        ops_.upload(guided_row_.col_range(0, n), pass.guided.data());
        ops_.upload(guidance_.col_range(0, n), pass.guidance.data());
    }
    if (pass.repeats && !pass.stops.empty())
        ops_.upload(run_.stops.col_range(0, int64_t(pass.stops.size())), pass.stops.data());
    ops_.upload(run_.status, status.data());
}

// Forwards the pass and reveals from it; a pass that repeats goes on until a sequence has finished its block. Returns the
// number of steps, and in pass.targets what they revealed.
int Engine::Implementation::run(Pass& pass) {
    const int again_rows = pass.again.T();
    network_.load(pass.batch, Place::Now);
    if (!pass.draws.empty()) upload(pass);
    const auto step = [&](Place place) {
        Tensor hidden = network_.forward(place);
        if (pass.draws.empty()) return;
        if (const int64_t n = int64_t(pass.guided.size())) {  // the last rows are those without the prompt
            const int64_t N = hidden.rows - n;
            ops_.guide_rows(hidden.row_range(0, N), hidden.row_range(N, N + n), guided_row_.col_range(0, n),
                            guidance_.col_range(0, n));
            hidden = hidden.row_range(0, N);
        }
        RevealRun run = run_;
        run.rows = run_.rows.row_range(0, hidden.rows), run.sampled = run_.sampled.row_range(0, hidden.rows);
        run.token = pass.repeats ? network_.token(Place::Again) : Tensor{};
        ops_.head_sample(run.sampled, run.rows, hidden, network_.weights().lm_head, config_.mask_id, n_ids_);
        ops_.reveal_blocks(run);
    };
    step(Place::Now);
    if (pass.repeats)
        ops_.repeat_while(run_.status.col_range(RUNNING, RUNNING + 1),
                          std::vector{pass.again.T(), pass.again.n_targets()}, [&] { step(Place::Again); });
    int status[STATUS_INTS] = {};
    if (!pass.draws.empty()) {
        ops_.download(status, run_.status);
        ops_.download(pass.targets.data(), run_.targets.row_range(0, int64_t(pass.targets.size())));
    }
    const int repeated = std::max(status[STEPS] - 1, 0);
    forward_passes_ += 1 + repeated;
    forwarded_rows_ += pass.batch.T() + int64_t(repeated) * again_rows;
    return status[STEPS];
}

Trajectory Engine::Implementation::finish(const Active& a) {
    Trajectory t = a.generation.trajectory();
    t.prefill_s = seconds(a.started, a.first_reveal);
    t.generate_s = seconds(a.first_reveal, Clock::now());
    return t;
}

std::vector<Trajectory> Engine::Implementation::generate(std::span<const Request> requests,
                                                         const Callbacks& callbacks) {
    check(requests);
    weights_.renew();  // they may have changed
    std::vector<Trajectory> done(requests.size());
    const auto finished = [&](int request, Trajectory t) {
        done[size_t(request)] = std::move(t);
        if (callbacks.on_finish) callbacks.on_finish(request, done[size_t(request)]);
    };
    Scheduler scheduler(requests, config_, limits_, slots_, kept_);
    Pass pass;
    const bool repeats = !ops_.on_host() && !callbacks.every_step;
    for (;;) {
        if (callbacks.should_stop && callbacks.should_stop()) break;
        scheduler.start_waiting();
        if (scheduler.active().empty()) break;
        scheduler.lay_out(pass, repeats);
        const int steps = run(pass);
        for (const Pass::Draw& draw : pass.draws) {
            Active& a = *draw.who;
            const bool first = a.first_reveal == a.started;
            a.generation.reveal(std::span(pass.targets).subspan(size_t(draw.first), size_t(draw.count)),
                                steps);
            a.generation.forward_passes += steps - 1;
            if (first) a.first_reveal = Clock::now();
            if (callbacks.on_reveal) callbacks.on_reveal(a.request, a.generation.progress());
            if (!a.generation.finished()) continue;
            finished(a.request, finish(a));
            scheduler.retire(a);
        }
    }
    CHECK(scheduler.waiting().empty() || (callbacks.should_stop), "%zu requests never started",
          scheduler.waiting().size());
    while (!scheduler.active().empty()) {  // interrupted
        Active& a = scheduler.active().front();
        finished(a.request, finish(a));
        scheduler.retire(a);
    }
    for (const int request : scheduler.waiting()) {
        Trajectory t;
        t.prompt_ids = requests[size_t(request)].prompt_ids;
        t.finish_reason = "interrupted";
        finished(request, t);
    }
    return done;
}
