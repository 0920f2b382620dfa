// packed_weights.h -- the weights as generation reads them: views of the parameters, and for small matrices also a copy in
// the order that this device multiplies few rows with fastest (Ops::pack). A device that wants no copies gets the views alone.
#pragma once
#include <vector>

#include "kernels/ops.h"
#include "model/parameters.h"

class PackedWeights {
  public:
    // Plans the copies in `arena`. `weights`, of a policy, may be only planned.
    PackedWeights(Ops& ops, const ModelConfig& config, const Parameters& weights, Arena& arena);
    PackedWeights(const PackedWeights&) = delete;  // the arena knows where the copies are

    // What a network is made with; its numbers are those of the last renew().
    const Parameters& view() const { return view_; }
    // Copies the weights as they are now: before the first pass, and when they or the arena's memory have changed.
    void renew();

  private:
    std::vector<Tensor*> multiplied();  // the matrices of view_ that rows are multiplied with

    Ops& ops_;
    const Parameters& weights_;
    const bool tied_;
    Parameters view_;
    std::vector<Tensor> copies_;  // one for each of multiplied(), without memory where there is none
};
