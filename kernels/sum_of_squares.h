// sum_of_squares.h -- the squared norm of a gradient.
//
//   sum_i t_i^2 in double: ranges of 4096 elements are summed in order, then the ranges' sums in order, so
//   the result depends on the shape alone and not on the number of threads.
#pragma once
#include "kernels/view.h"

namespace ref {

template <class T>
double sum_of_squares(const T* x, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += double(x[i]) * double(x[i]);
    return sum;
}

}  // namespace ref

namespace cpu {
double sum_of_squares(Tensor t);
}
