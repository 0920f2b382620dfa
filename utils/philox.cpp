#include "utils/philox.h"

#include <cmath>

float Rng::normal() {
    const float u = 1.0f - uniform(), v = uniform();  // u in (0, 1]: the logarithm is finite
    return std::sqrt(-2.0f * std::log(u)) * std::cos(6.28318530718f * v);
}
