// scheduler.h -- which sequences run: starts waiting requests as soon as there is room, lays out every forward pass, gives
// slots back.
#pragma once
#include <chrono>
#include <list>
#include <map>
#include <memory>

#include "inference/generation.h"
#include "inference/slots.h"
#include "model/layout_generate.h"

// The slots of a prompt's whole blocks, and how many of them are filled.
struct Prefix {
    std::span<const int> ids;
    int block, slot, filled = 0, users = 0;
    int length() const { return int(ids.size()); }
    bool ready() const { return filled == length(); }
};

// A sequence in flight.
struct Active {
    Active(int request, const Request& r, const ModelConfig& config)
        : request(request), generation(r, config) {}
    int request;
    Generation generation;
    Prefix* prefix = nullptr;            // shared with other sequences, or its own:
    std::unique_ptr<Prefix> own_prefix;  // with EngineLimits::keep_last, at the head of its run
    int run = 0, run_size = 0;           // its own slots
    SequenceSlots at;
    std::chrono::steady_clock::time_point started, first_reveal;
};

// Keys that outlive their sequence, for a prompt that continues it: slots [slot, slot + size) hold the first
// ids.size() positions.
struct Kept {
    std::vector<int> ids;
    int block = 0, slot = 0, size = 0;
};

constexpr int MOST_STOPS = 1024;  // stop ids of all sequences of a pass that repeats

// One forward pass: its rows, and which sequences draw candidates from which targets.
struct Pass {
    struct Draw {
        Active* who;
        int first, count;  // targets [first, first + count), one per masked position
    };
    TokenBatch batch;
    std::vector<Draw> draws;
    std::vector<SampleRow> rows;        // one per target
    std::vector<RevealTarget> targets;  // likewise
    std::vector<RevealBlock> blocks;    // one per draw
    // Classifier-free guidance: which targets, how strongly, and for each the row that gives its unconditional hidden
    // state. These rows are targets of the batch too, behind all others.
    std::vector<int> guided, guide_row;
    std::vector<float> guidance;
    std::vector<int> stops;  // all sequences' stop ids, of a pass that repeats
    // Whether the steps after this one may need nothing new from the host, and what they forward: the same blocks without
    // prompts and commits, with the same targets.
    bool repeats;
    TokenBatch again;
};

class Scheduler {
  public:
    Scheduler(std::span<const Request> requests, const ModelConfig& config, const EngineLimits& limits,
              SlotAllocator& slots, Kept& kept);
    ~Scheduler();  // gives back the slots of what still runs

    // Starts waiting requests, first come first served; one that does not fit yet lets smaller ones pass.
    void start_waiting();
    // Lays out the next pass: as many sequences as fit the rows, those that were left out last time first. repeats: whether
    // it may be a pass whose steps are repeated without the host.
    void lay_out(Pass& pass, bool repeats);
    // Takes a finished sequence out; its slots are free.
    void retire(Active& sequence);

    std::list<Active>& active() { return active_; }
    const std::list<int>& waiting() const { return waiting_; }

  private:
    bool start(int request);
    bool place(Active& a, const Footprint& need);        // prefix shared with others
    bool place_alone(Active& a, const Footprint& need);  // prefix and the rest in one run, to be kept
    int allocate(int n);                                 // gives up what is kept if it must
    void prefill(Pass& pass, Active& a) const;
    bool add_rows(Pass& pass, Active& a) const;                                 // false: no room in this pass
    int add_window(TokenBatch& batch, const Active& a, const Window& w) const;  // its first row
    // first_guide: the first row without the prompt, of a guided sequence
    void add_targets(Pass& pass, Active& a, int first_row, int first_again, int first_guide) const;
    void add_stops(Pass& pass, RevealBlock& block, std::span<const int> stops) const;
    void drop_kept();

    std::span<const Request> requests_;
    const ModelConfig& config_;
    const EngineLimits& limits_;
    const Geometry geometry_;
    SlotAllocator& slots_;
    Kept& kept_;
    std::list<int> waiting_;
    std::list<Active> active_;
    std::map<std::pair<int, std::vector<int>>, Prefix> prefixes_;  // by block length and ids
    bool room_ = true;  // something was given back since the last start_waiting()
};
