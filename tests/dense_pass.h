// dense_pass.h -- training's slow truth: one dense sequence per state of a response, one forward pass each.
#pragma once
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "model/layout.h"
#include "model/transformer.h"
#include "tests/random_model.h"

struct State {
    std::vector<int> ids, target;
    bool causal = false;
};

// ids and targets of one copy, dense.
inline State dense_state(const Sequence& s, const Copy& copy) {
    State state;
    if (copy.causal) return {s.token, copy.target, true};
    state.ids = {s.token.begin(), s.token.begin() + copy.begin};
    state.ids.insert(state.ids.end(), copy.token.begin(), copy.token.end());
    state.target = copy.target;
    return state;
}

// The hidden rows that predict (or value) positions of one dense sequence, by a pass of its own.
struct DensePass {
    std::unique_ptr<Ops> ops = make_cpu_ops();
    Arena arena{"dense", host_memory()};
    Parameters grads;
    std::unique_ptr<Transformer> network;
    Tensor ids, out, lse, dout, hidden;
    const RandomModel& model;
    Head head;
    explicit DensePass(const RandomModel& m, Head h) : model(m), head(h) {
        grads.plan(arena, m.config, h);
        network = std::make_unique<Transformer>(*ops, m.config, m.weights, arena, 128, 128, nullptr);
        for (Tensor* t : {&out, &lse, &dout}) arena.add(t, "target", 1, 128);
        arena.add(&ids, "ids", 1, 128, DType::I32);
        arena.allocate();
        grads.bind(m.config);
    }
    std::vector<double> forward(const State& s, const std::vector<int>& target_ids, int block) {
        TokenBatch b;
        const int T = int(s.ids.size());
        for (int i = 0; i < T; i++) {
            AttentionSpans see;
            see.end[0] = s.causal ? i + 1 : block ? (i / block + 1) * block : T;
            b.add(s.ids[size_t(i)], i, i, see);
        }
        const bool shift = s.causal || (model.config.shift && head == Head::Policy);
        for (const int i : s.target) b.target_row.push_back(std::max(i - int(shift), 0));
        hidden = network->forward(b);
        const int n = b.n_targets();
        if (head == Head::Value) {
            ops->value_head_forward(out.col_range(0, n), hidden, model.weights.value_head);
        } else {
            ops->upload(ids.col_range(0, n), target_ids.data());
            ops->head_logprob(out.col_range(0, n), lse.col_range(0, n), {}, hidden, model.weights.lm_head,
                              ids.col_range(0, n));
        }
        const float* o = out.as<float>();
        return {o, o + n};
    }
    void backward(const std::vector<double>& d) {
        const int n = int(d.size());
        for (int i = 0; i < n; i++) dout.as<float>()[i] = float(d[size_t(i)]);
        const Tensor dhidden = network->dhidden(n);
        if (head == Head::Value)
            ops->value_head_backward(dhidden, grads.value_head, dout.col_range(0, n), hidden,
                                     model.weights.value_head);
        else
            ops->head_backward(dhidden, grads.lm_head, dout.col_range(0, n), lse.col_range(0, n), hidden,
                               model.weights.lm_head, ids.col_range(0, n));
        network->backward(grads, dhidden);
    }
};

inline void expect_same_gradients(const Parameters& got, const Parameters& want, const ModelConfig& c) {
    std::map<std::string, std::vector<double>> wanted;
    const auto numbers = [](const Tensor& t) {
        std::vector<double> out;
        for (int64_t r = 0; r < t.rows; r++)
            for (int64_t i = 0; i < t.cols; i++) out.push_back(double(t.row<float>(r)[i]));
        return out;
    };
    want.for_each(c, [&](const std::string& name, const Tensor& t) { wanted[name] = numbers(t); });
    got.for_each(c, [&](const std::string& name, const Tensor& t) {
        const std::vector<double> a = numbers(t), &b = wanted.at(name);
        double difference = 0, size = 0;
        for (size_t i = 0; i < a.size(); i++)
            difference += (a[i] - b[i]) * (a[i] - b[i]), size += b[i] * b[i];
        EXPECT_LE(std::sqrt(difference), 1e-5 * std::sqrt(size) + 1e-7) << name;
    });
}

inline void expect_near(const std::vector<double>& got, const std::vector<double>& want) {
    ASSERT_EQ(got.size(), want.size());
    for (size_t i = 0; i < got.size(); i++)
        EXPECT_NEAR(got[i], want[i], 2e-5 * std::max(1.0, std::abs(want[i])));
}
