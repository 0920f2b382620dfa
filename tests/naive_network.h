// naive_network.h -- the whole network as plainly as it can be written, for one sequence under a dense mask,
// templated on the scalar: the reference that Transformer is compared with, and (over complex numbers) that
// its gradients are.
#pragma once
#include <cmath>
#include <complex>
#include <map>
#include <numeric>
#include <string>
#include <vector>

#include "model/parameters.h"

template <class S>
struct NaiveNetwork {
    const ModelConfig& c;
    std::map<std::string, std::vector<S>> w;  // by Hugging Face name

    NaiveNetwork(const ModelConfig& config, const Parameters& p) : c(config) {
        p.for_each(config, [&](const std::string& name, const Tensor& t) {
            std::vector<S>& out = w[name];
            for (int64_t r = 0; r < t.rows; r++)
                for (int64_t i = 0; i < t.cols; i++) out.push_back(S(double(t.row<float>(r)[i])));
        });
    }

    using Rows = std::vector<std::vector<S>>;

    static S rsqrt_mean(const S* x, int n, double eps) {
        S sum = S(0);
        for (int i = 0; i < n; i++) sum += x[i] * x[i];
        return S(1) / std::sqrt(sum / S(n) + S(eps));
    }
    Rows norm(const Rows& x, const std::string& weight) const {
        Rows out = x;
        for (auto& row : out) {
            const S r = rsqrt_mean(row.data(), int(row.size()), c.rms_eps);
            for (size_t i = 0; i < row.size(); i++) row[i] = row[i] * r * w.at(weight)[i];
        }
        return out;
    }
    Rows linear(const Rows& x, const std::string& name) const {
        const std::vector<S>& weight = w.at(name + ".weight");
        const size_t K = x[0].size(), N = weight.size() / K;
        const auto bias = w.find(name + ".bias");
        Rows out(x.size(), std::vector<S>(N, S(0)));
        for (size_t t = 0; t < x.size(); t++)
            for (size_t n = 0; n < N; n++) {
                for (size_t k = 0; k < K; k++) out[t][n] += x[t][k] * weight[n * K + k];
                if (bias != w.end()) out[t][n] += bias->second[n];
            }
        return out;
    }
    // q/k norm of one head, then rotation by its position.
    void norm_rope(S* x, const std::string& weight, int position) const {
        if (c.qk_norm) {
            const S r = rsqrt_mean(x, c.HD, c.rms_eps);
            for (int i = 0; i < c.HD; i++) x[i] = x[i] * r * w.at(weight)[size_t(i)];
        }
        const int half = c.HD / 2;
        for (int i = 0; i < half; i++) {
            const double angle = position * std::pow(c.rope_theta, -2.0 * i / c.HD);
            const S a = x[i], b = x[i + half];
            x[i] = a * S(std::cos(angle)) - b * S(std::sin(angle));
            x[i + half] = b * S(std::cos(angle)) + a * S(std::sin(angle));
        }
    }
    static double real_of(double x) { return x; }
    static double real_of(std::complex<double> x) { return x.real(); }

    // Keys and values of every position, by layer: what earlier passes left.
    struct Kept {
        std::vector<Rows> k, v;
    };

    // Final-norm hidden states of every position; sees(i, j): may position i look at j.
    template <class Sees>
    Rows forward(const std::vector<int>& ids, Sees sees) const {
        std::vector<int> all(ids.size());
        std::iota(all.begin(), all.end(), 0);
        Kept kept;
        return forward(ids, all, kept, sees);
    }
    // The same of positions `at` of `ids` alone: their keys and values take the place of those that are kept, which they see.
    template <class Sees>
    Rows forward(const std::vector<int>& ids, const std::vector<int>& at_position, Kept& kept,
                 Sees sees) const {
        const int T = int(at_position.size()), n = int(ids.size());
        kept.k.resize(size_t(c.L), Rows(ids.size()));
        kept.v.resize(size_t(c.L), Rows(ids.size()));
        Rows x;
        for (const int position : at_position) {
            const auto row = w.at("model.embed_tokens.weight").begin() + int64_t(ids[size_t(position)]) * c.C;
            x.emplace_back(row, row + c.C);
        }
        for (int l = 0; l < c.L; l++) {
            Rows &all_k = kept.k[size_t(l)], &all_v = kept.v[size_t(l)];
            const std::string at = format("model.layers.%d.", l);
            const Rows n1 = norm(x, at + "input_layernorm.weight");
            Rows q = linear(n1, at + "self_attn.q_proj"), k = linear(n1, at + "self_attn.k_proj"),
                 v = linear(n1, at + "self_attn.v_proj");
            for (int t = 0; t < T; t++) {
                const int position = at_position[size_t(t)];
                for (int h = 0; h < c.NH; h++)
                    norm_rope(&q[size_t(t)][size_t(h * c.HD)], at + "self_attn.q_norm.weight", position);
                for (int h = 0; h < c.NKV; h++)
                    norm_rope(&k[size_t(t)][size_t(h * c.HD)], at + "self_attn.k_norm.weight", position);
                all_k[size_t(position)] = k[size_t(t)];
                all_v[size_t(position)] = v[size_t(t)];
            }
            Rows att(size_t(T), std::vector<S>(size_t(c.q_width()), S(0)));
            for (int t = 0; t < T; t++)
                for (int h = 0; h < c.NH; h++) {
                    const int g = h / (c.NH / c.NKV);
                    S sum = S(0);
                    for (int j = 0; j < n; j++) {
                        if (!sees(at_position[size_t(t)], j)) continue;
                        S score = S(0);
                        for (int i = 0; i < c.HD; i++)
                            score +=
                                q[size_t(t)][size_t(h * c.HD + i)] * all_k[size_t(j)][size_t(g * c.HD + i)];
                        const S e = std::exp(score / S(std::sqrt(double(c.HD))));
                        sum += e;
                        for (int i = 0; i < c.HD; i++)
                            att[size_t(t)][size_t(h * c.HD + i)] +=
                                e * all_v[size_t(j)][size_t(g * c.HD + i)];
                    }
                    for (int i = 0; i < c.HD; i++) att[size_t(t)][size_t(h * c.HD + i)] /= sum;
                }
            const Rows o = linear(att, at + "self_attn.o_proj");
            for (int t = 0; t < T; t++)
                for (int i = 0; i < c.C; i++) x[size_t(t)][size_t(i)] += o[size_t(t)][size_t(i)];
            const Rows n2 = norm(x, at + "post_attention_layernorm.weight");
            Rows gate = linear(n2, at + "mlp.gate_proj");
            const Rows up = linear(n2, at + "mlp.up_proj");
            for (int t = 0; t < T; t++)
                for (int i = 0; i < c.F; i++) {
                    S& a = gate[size_t(t)][size_t(i)];
                    a = a / (S(1) + std::exp(-a)) * up[size_t(t)][size_t(i)];
                }
            const Rows d = linear(gate, at + "mlp.down_proj");
            for (int t = 0; t < T; t++)
                for (int i = 0; i < c.C; i++) x[size_t(t)][size_t(i)] += d[size_t(t)][size_t(i)];
        }
        return norm(x, "model.norm.weight");
    }
};
