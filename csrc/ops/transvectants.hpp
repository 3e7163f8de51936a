// transvectants: channel-wise transvectants of all pairs of forms, mixed over channels and paths for each degree, in one pass.
//
// A feature is a list of forms ("slots") of degrees m_1, .., m_S in scaled coordinates, one after the other: f (B, C, F), F = sum (m_s +
// 1). A path (s, t, k) with s <= t takes the forms s and t to their k-th transvectant of degree m_s + m_t - 2k. With the path's orthogonal
// Clebsch-Gordan coefficients T,
//
//     (f_s, f_t)_k [l] = sum_{i + j = l + k} T[i, j] f_s[i] f_t[j]
//     y_D[b, o, l]     = sum_c sum_{paths to D} W[c, path, o] (f_s[b, c], f_t[b, c])_k [l]
//
// y (B, O, G) holds the forms of degrees D in their order, and weight (C, P, O) the paths in the order of the degree they lead to. All that
// differentiation needs are contractions of the polarisation P(f, h, W) = Q(f + h, W) - Q(f, W) - Q(h, W) of this map Q, which is linear in
// each argument:
//
//     transvectants         f, W     -> Q(f, W);   with h: f, h, W -> P(f, h, W)
//     transvectants_input   f, W, z  -> x with <x, h> = <z, P(f, h, W)> for all h
//     transvectants_weight  f, z     -> w with <w, W> = <z, Q(f, W)> for all W;   with h: <w, W> = <z, P(f, h, W)>
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/view.hpp"

namespace isotypic {

// A coefficient of the transvectant of one path: sum_{t < count} coefficients[coefficient + t] f[first + t] f[second - t].
struct TransvectantRow {
    int first, second, count, coefficient;
    int out;    // index into G
    int path;   // index among the paths to its degree
    int place;  // rows_before[out] + path: its place among all rows, in the order (out, path)
};

// Rows of one pair of slots and one i + j = l + k share the products f[first + t] f[second - t], t < count. Antidiagonals of more than
// kTransvectantEntries are cut: a part adds to its rows from their coefficient `skip` on.
constexpr int kTransvectantEntries = 11;
struct TransvectantAntidiagonal {
    int first, second, count, skip;
    int row_begin, row_end;
};

// x[i] gets coefficient * z[place] * f[other].
struct TransvectantGradientTerm {
    int place, coefficient, other;
};

// Everything that depends on the degrees and paths alone.
struct TransvectantsPlan {
    int in_size = 0, out_size = 0;  // F, G
    int paths = 0, out_slots = 0;
    std::vector<int> path_begin;   // (out_slots + 1)
    std::vector<int> out_begin;    // (out_slots + 1): first index into G
    std::vector<int> slot;         // (G)
    std::vector<int> rows_before;  // (G + 1): place of the first row of an output coefficient
    std::vector<TransvectantAntidiagonal> antidiagonals;
    std::vector<TransvectantRow> rows;    // by antidiagonal
    std::vector<TransvectantRow> placed;  // by place
    std::vector<double> coefficients;
    std::vector<float> coefficients32;
    std::vector<int> gradient_begin;  // (F + 1)
    std::vector<TransvectantGradientTerm> gradient_terms;

    // paths: (s, t, k) one after the other; tables: their T (m+1, n+1) one after the other. std::invalid_argument when these do not fit
    // together.
    TransvectantsPlan(const std::vector<int>& degrees, const std::vector<int>& degrees_out, const std::vector<int>& paths,
                      const std::vector<double>& tables);
};

// All tensors contiguous, float32 or float64; h may be undefined. Outputs are fully overwritten.
namespace cpu {
void transvectants(const TransvectantsPlan& plan, const View& f, const View& h, const View& weight, const View& y);
void transvectants_input(const TransvectantsPlan& plan, const View& f, const View& weight, const View& z, const View& x);
void transvectants_weight(const TransvectantsPlan& plan, const View& f, const View& h, const View& z, const View& weight);
}  // namespace cpu

// The same on the current device, queued on the caller's stream; deterministic. `tables`: transvectants_tables(plan) on the device, aligned
// to 256 bytes.
namespace cuda {
std::vector<std::byte> transvectants_tables(const TransvectantsPlan& plan);
void transvectants(const TransvectantsPlan& plan, const View& f, const View& h, const View& weight, const View& y, const void* tables,
                   void* stream);
void transvectants_input(const TransvectantsPlan& plan, const View& f, const View& weight, const View& z, const View& x, const void* tables,
                         void* stream);
void transvectants_weight(const TransvectantsPlan& plan, const View& f, const View& h, const View& z, const View& weight,
                          const void* tables, void* stream);
}  // namespace cuda

}  // namespace isotypic
