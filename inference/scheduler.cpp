#include "inference/scheduler.h"

#include <algorithm>

#include "kernels/reveal_block.h"

Scheduler::Scheduler(std::span<const Request> requests, const ModelConfig& config, const EngineLimits& limits,
                     SlotAllocator& slots, Kept& kept)
    : requests_(requests),
      config_(config),
      limits_(limits),
      geometry_(geometry_of(config)),
      slots_(slots),
      kept_(kept) {
    for (int i = 0; i < int(requests.size()); i++) waiting_.push_back(i);
}

Scheduler::~Scheduler() {
    if (active_.empty()) return;
    // An exception: the last pass may not have run, nothing it should have written can be kept.
    while (!active_.empty()) retire(active_.front());
    drop_kept();
}

// ---- who runs ----

void Scheduler::start_waiting() {
    if (!room_) return;
    room_ = false;
    for (auto request = waiting_.begin();
         request != waiting_.end() && int(active_.size()) < limits_.max_active;)
        request = start(*request) ? waiting_.erase(request) : std::next(request);
}

bool Scheduler::start(int request) {
    const Request& r = requests_[size_t(request)];
    const Footprint need = footprint(int(r.prompt_ids.size()), r.options, config_);
    active_.emplace_back(request, r, config_);
    Active& a = active_.back();
    if (limits_.keep_last && geometry_ != Geometry::Canvas ? place_alone(a, need) : place(a, need)) {
        a.started = a.first_reveal = std::chrono::steady_clock::now();
        return true;
    }
    active_.pop_back();
    return false;
}

int Scheduler::allocate(int n) {
    int begin = slots_.allocate(n);
    if (begin < 0 && kept_.size) {
        drop_kept();
        begin = slots_.allocate(n);
    }
    return begin;
}

bool Scheduler::place(Active& a, const Footprint& need) {
    const std::span<const int> ids = a.generation.prompt().first(size_t(need.shared_slots));
    const auto key =
        std::pair(requests_[size_t(a.request)].options.block, std::vector(ids.begin(), ids.end()));
    auto prefix = prefixes_.find(key);
    const int own = allocate(need.own_slots);
    if (own < 0) return false;
    if (prefix == prefixes_.end()) {
        const int slot = allocate(need.shared_slots);
        if (slot < 0) {
            slots_.release(own, need.own_slots);
            return false;
        }
        prefix = prefixes_.emplace(key, Prefix{.ids = ids, .block = key.first, .slot = slot}).first;
    }
    prefix->second.users++;
    a.prefix = &prefix->second;
    a.run = own;
    a.run_size = need.own_slots;
    a.at = {.shared = need.shared_slots, .prefix = a.prefix->slot, .own = own};
    return true;
}

bool Scheduler::place_alone(Active& a, const Footprint& need) {
    const std::span<const int> ids = a.generation.prompt().first(size_t(need.shared_slots));
    const int block = requests_[size_t(a.request)].options.block, size = need.shared_slots + need.own_slots;
    int filled = 0;
    if (kept_.size && kept_.block == block) {
        const auto [here, there] = std::mismatch(ids.begin(), ids.end(), kept_.ids.begin(), kept_.ids.end());
        filled = int(here - ids.begin()) / block * block;
    }
    if (filled && slots_.extend(kept_.slot, kept_.size, size)) {
        a.run = kept_.slot;
        a.run_size = std::max(kept_.size, size);
        kept_ = {};
    } else {
        filled = 0;
        a.run = allocate(size);
        a.run_size = size;
        if (a.run < 0) return false;
    }
    a.own_prefix =
        std::make_unique<Prefix>(Prefix{.ids = ids, .block = block, .slot = a.run, .filled = filled});
    a.prefix = a.own_prefix.get();
    a.at = {.shared = need.shared_slots, .prefix = a.run, .own = a.run + need.shared_slots};
    return true;
}

void Scheduler::retire(Active& a) {
    if (a.own_prefix) {
        drop_kept();
        const std::span<const int> settled =
            a.prefix->ready() ? a.generation.settled() : a.prefix->ids.first(size_t(a.prefix->filled));
        kept_ = {{settled.begin(), settled.end()}, a.prefix->block, a.run, a.run_size};
    } else {
        slots_.release(a.run, a.run_size);
        if (--a.prefix->users == 0) {
            slots_.release(a.prefix->slot, a.prefix->length());
            prefixes_.erase({a.prefix->block, {a.prefix->ids.begin(), a.prefix->ids.end()}});
        }
    }
    room_ = true;
    active_.remove_if([&](const Active& other) { return &other == &a; });
}

void Scheduler::drop_kept() {
    if (kept_.size) slots_.release(kept_.slot, kept_.size);
    kept_ = {};
}

// ---- what a pass computes ----

void Scheduler::lay_out(Pass& pass, bool repeats) {
    pass.batch.clear();
    pass.again.clear();
    pass.draws.clear();
    pass.rows.clear();
    pass.targets.clear();
    pass.blocks.clear();
    pass.stops.clear();
    pass.guided.clear();
    pass.guide_row.clear();
    pass.guidance.clear();
    pass.repeats = repeats;
    std::list<Active> served;
    for (auto a = active_.begin(); a != active_.end();) {
        const auto next = std::next(a);
        if (add_rows(pass, *a)) served.splice(served.end(), active_, a);
        a = next;
    }
    active_.splice(active_.end(), served);
    pass.repeats &= !pass.draws.empty();
    std::vector<int>& rows = pass.batch.target_row;
    rows.insert(rows.end(), pass.guide_row.begin(), pass.guide_row.end());
}

void Scheduler::prefill(Pass& pass, Active& a) const {
    Prefix& p = *a.prefix;
    const int room = (limits_.max_rows - pass.batch.T()) / p.block * p.block;
    const int end = std::min(p.filled + room, p.length());
    if (end == p.filled) return;
    add_prompt(pass.batch, p.ids, p.filled, end, p.block, p.slot);
    p.filled = end;
}

bool Scheduler::add_rows(Pass& pass, Active& a) const {
    Generation& s = a.generation;
    const int before = pass.batch.T();
    if (!a.prefix->ready()) prefill(pass, a);
    if (a.prefix->ready()) {
        const int commit = s.commit_end() - s.commit_begin();
        const bool separate = commit && !limits_.fuse_commit && geometry_ == Geometry::Blocks;
        const Window now = s.window(), next = s.next_window();
        const int denoise = separate ? 0 : now.rows();
        const bool guided = s.guidance() > 0;
        if (pass.batch.T() + commit + (guided ? 2 : 1) * denoise <= limits_.max_rows) {
            int first = 0;
            if (commit) {
                first =
                    add_block(pass.batch, s.ids(s.commit_begin(), s.commit_end()), s.commit_begin(), a.at);
                s.committed();
            }
            int again = 0;
            if (denoise) {
                first = add_window(pass.batch, a, now);
                if (pass.repeats) again = add_window(pass.again, a, next);
            }
            int guide = 0;
            if (guided) {
                SequenceSlots second = a.at;  // the slots behind those of the canvas with the prompt
                second.own += s.n_positions();
                guide = add_block(pass.batch, s.ids_without_prompt(), 0, second);
                pass.repeats = false;
            }
            if (!separate) add_targets(pass, a, first, again, guide);
        }
    }
    if (pass.batch.T() == before) return false;
    if (pass.draws.empty() || pass.draws.back().who != &a) pass.repeats = false;  // it goes on differently
    s.forward_passes++;
    return true;
}

int Scheduler::add_window(TokenBatch& batch, const Active& a, const Window& w) const {
    return add_block(batch, a.generation.ids(w.begin, w.end), w.begin, a.at, w.sees - w.end);
}

// Two neighbouring sequences with the same stop ids share one list.
void Scheduler::add_stops(Pass& pass, RevealBlock& block, std::span<const int> stops) const {
    if (!pass.blocks.empty()) {
        block.first_stop = pass.blocks.back().first_stop, block.n_stops = pass.blocks.back().n_stops;
        const auto last = std::span(pass.stops).subspan(size_t(block.first_stop), size_t(block.n_stops));
        if (std::equal(last.begin(), last.end(), stops.begin(), stops.end())) return;
    }
    block.first_stop = int(pass.stops.size()), block.n_stops = int(stops.size());
    pass.stops.insert(pass.stops.end(), stops.begin(), stops.end());
    if (int(pass.stops.size()) > MOST_STOPS) pass.repeats = false;
}

// Masked position p is read at its own row, or where the model's outputs are shifted, at the row before it.
void Scheduler::add_targets(Pass& pass, Active& a, int first_row, int first_again, int first_guide) const {
    const Generation& s = a.generation;
    const int now = s.window().begin, next = s.next_window().begin;
    const int first = int(pass.targets.size()), count = int(s.masked().size());
    pass.draws.push_back({&a, first, count});
    RevealBlock block = s.reveal_block();
    block.first = first;
    if (surely_revealed(block.rule, block.step, count) >= count) pass.repeats = false;
    if (pass.repeats) add_stops(pass, block, s.stop_ids());
    pass.blocks.push_back(block);
    for (int i = 0; i < count; i++) {
        const int position = s.masked()[size_t(i)];
        const int read_at = position - (config_.shift ? 1 : 0);
        pass.batch.target_row.push_back(first_row + std::max(read_at - now, 0));
        pass.rows.push_back(s.sample_row(position));
        if (s.guidance() > 0) {
            pass.guided.push_back(int(pass.targets.size()));
            pass.guide_row.push_back(first_guide + std::max(read_at, 0));  // of the whole canvas
            pass.guidance.push_back(s.guidance());
        }
        pass.targets.push_back({.row = first_again + position - next, .ends = s.ends_at(size_t(i))});
        if (pass.repeats) pass.again.target_row.push_back(first_again + std::max(read_at - next, 0));
    }
}
