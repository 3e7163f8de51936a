// Driver of the CPU kernels of batch_norm: cuts x into pieces and hands them to the threads.
//
// Where many neighbouring numbers are of one channel, a piece is part of a channel, and a channel is finished before the next one begins
// when there are enough of them for the threads: what fits in L2 is then read from memory once. Otherwise (channels last) rows of all
// channels are pieces, and several rows are taken as one, so that a row fills vectors whatever the number of channels is. The second pass
// begins where the first one ended. Pieces, and the order in which their sums are put together, do not depend on the number of threads.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "core/large_pages.hpp"
#include "core/parallel.hpp"
#include "cpu/batch_norm_kernel.hpp"
#include "cpu/isa.hpp"
#include "ops/batch_norm.hpp"

namespace isotypic::cpu {
namespace {

constexpr int64_t kNeighbours = 32;         // numbers of one channel side by side, from which on it has pieces of its own
constexpr int64_t kPiece = 65536;           // numbers in a piece
constexpr int64_t kRowsOfPiece = 256;       // at the least, where there are many columns
constexpr int64_t kWorkOfThread = 1 << 15;  // numbers for which another thread is worth waking

const BatchNormKernels& kernel_set() {
    return ISOTYPIC_SELECT_ISA(batch_norm_kernels);
}

template <class T>
const BatchNormKernel<T>& kernel_of() {
    if constexpr (sizeof(T) == sizeof(double))
        return kernel_set().float64;
    else
        return kernel_set().float32;
}

template <class T>
class Run {
  public:
    Run(const View& x, const View& weight, const View& bias, const BatchNormSettings& settings)
        : kernel_(kernel_of<T>()),
          dtype_(x.dtype),
          outer_(x.sizes[0]),
          channels_(x.sizes[1]),
          inner_(x.sizes[2]),
          count_(outer_ * inner_),
          settings_(settings),
          weight_(static_cast<const T*>(weight.data)),
          bias_(static_cast<const T*>(bias.data)) {
        const int64_t numbers = count_ * channels_;
        by_column_ = inner_ < kNeighbours;
        if (by_column_) {
            // Rows of whole vectors, and of four at the least.
            const int64_t lanes = kernel_.lanes, row = channels_ * inner_;
            width_ = row >= 8 * lanes ? row : std::lcm(row, lanes);
            while (width_ < 4 * lanes) width_ *= 2;
            rows_ = numbers / width_;
            rows_of_piece_ = std::max(kPiece / width_, kRowsOfPiece);
            whole_ = (rows_ + rows_of_piece_ - 1) / rows_of_piece_;
            pieces_ = whole_ + (numbers % width_ != 0);
        } else {
            cut_channel(kPiece);
        }
        ranges_ = by_column_ ? 1 : channels_;
        threads_ = static_cast<int>(std::clamp<int64_t>(numbers / kWorkOfThread, 1, max_threads()));
        columns_ = by_column_ ? width_ : channels_;
        values_.resize(static_cast<size_t>(5 * columns_));
        if (itemsize(dtype_) < 4) scratch_.resize(static_cast<size_t>(3 * kBatchNormScratch * threads_));
    }

    void forward(const View& x, const View& y, const View& statistics) {
        T* out = static_cast<T*>(statistics.data);
        allocate();
        two_passes(
            [&](int64_t range, int64_t index, int thread) {
                kernel_.statistics(piece(index), at(x, range, index), first(range, index), second(range, index), scratch(thread));
            },
            [&](int64_t range) {
                put_together(range, out);
                set_forward(range, out);
            },
            [&](int64_t range, int64_t index, int thread) { apply(x, y, range, index, thread); });
    }

    void apply(const View& x, const View& statistics, const View& y) {
        for (int64_t range = 0; range < ranges_; ++range) set_forward(range, static_cast<const T*>(statistics.data));
        if (!by_column_) cut_channel(std::max(kPiece / channels_, inner_));  // parts of all channels, in the order of memory
        parallel_for(ranges_ * pieces_, threads_, [&](int64_t item, int thread) { apply(x, y, item % ranges_, item / ranges_, thread); });
    }

    void backward(const View& g, const View& x, const View& statistics, bool batch, const View& dx, const View& sums) {
        const T* given = static_cast<const T*>(statistics.data);
        for (int64_t range = 0; range < ranges_; ++range) set_forward(range, given);
        allocate();
        two_passes(
            [&](int64_t range, int64_t index, int thread) {
                kernel_.sums(piece(index), parameters(range), at(g, range, index), at(x, range, index), first(range, index),
                             second(range, index), scratch(thread));
            },
            [&](int64_t range) { set_backward(range, given, batch, static_cast<T*>(sums.data)); },
            [&](int64_t range, int64_t index, int thread) {
                kernel_.gradient(piece(index), parameters(range), at(g, range, index), at(x, range, index), at(dx, range, index),
                                 scratch(thread));
            });
    }

  private:
    // Pieces of about so many numbers.
    void cut_channel(int64_t numbers) {
        width_ = std::min(inner_, kPiece);
        rows_of_piece_ = std::max<int64_t>(1, numbers / width_);
        across_ = (inner_ + width_ - 1) / width_;
        pieces_ = across_ * ((outer_ + rows_of_piece_ - 1) / rows_of_piece_);
    }

    // Partial results: two numbers for each column of each piece; and two sums for each channel. Nothing is allocated inside a parallel
    // region, out of which no exception may come.
    void allocate() {
        partial_.resize(static_cast<size_t>(2 * ranges_ * pieces_ * (by_column_ ? width_ : 1)));
        totals_.resize(static_cast<size_t>(2 * channels_));
    }
    double* first(int64_t range, int64_t index) { return partial_.data() + (range * pieces_ + index) * (by_column_ ? width_ : 1); }
    double* second(int64_t range, int64_t index) { return first(range, index) + partial_.size() / 2; }
    T* scratch(int thread) { return scratch_.empty() ? nullptr : scratch_.data() + 3 * kBatchNormScratch * thread; }

    template <class First, class Between, class Second>
    void two_passes(const First& first_pass, const Between& between, const Second& second_pass) {
        if (ranges_ >= threads_) {
            parallel_for(ranges_, threads_, [&](int64_t range, int thread) {
                for (int64_t index = 0; index < pieces_; ++index) first_pass(range, index, thread);
                between(range);
                for (int64_t index = pieces_ - 1; index >= 0; --index) second_pass(range, index, thread);
            });
            return;
        }
        const int64_t items = ranges_ * pieces_;
        parallel_for(items, threads_, [&](int64_t item, int thread) { first_pass(item / pieces_, item % pieces_, thread); });
        for (int64_t range = 0; range < ranges_; ++range) between(range);
        parallel_for(items, threads_, [&](int64_t item, int thread) { second_pass(item / pieces_, item % pieces_, thread); });
    }

    int64_t offset(int64_t range, int64_t index) const {
        if (by_column_) return index * rows_of_piece_ * width_ - (index == whole_ ? (whole_ * rows_of_piece_ - rows_) * width_ : 0);
        return (index / across_ * rows_of_piece_ * channels_ + range) * inner_ + index % across_ * width_;
    }

    BatchNormPiece piece(int64_t index) const {
        BatchNormPiece piece{1, width_, width_, dtype_, by_column_, settings_.relu};
        if (by_column_) {
            if (index == whole_)
                piece.width = count_ * channels_ % width_;
            else
                piece.rows = std::min(rows_of_piece_, rows_ - index * rows_of_piece_);
        } else {
            piece.rows = std::min(rows_of_piece_, outer_ - index / across_ * rows_of_piece_);
            piece.width = std::min(width_, inner_ - index % across_ * width_);
            piece.stride = channels_ * inner_;
        }
        return piece;
    }

    char* at(const View& view, int64_t range, int64_t index) const {
        return static_cast<char*>(view.data) + offset(range, index) * itemsize(dtype_);
    }

    void apply(const View& x, const View& y, int64_t range, int64_t index, int thread) {
        kernel_.apply(piece(index), parameters(range), at(x, range, index), at(y, range, index), scratch(thread));
    }

    // visit(channel, numbers, first, second) for each partial result of a range, in a fixed order.
    template <class Visit>
    void for_partials(int64_t range, const Visit& visit) {
        for (int64_t index = 0; index < pieces_; ++index) {
            const BatchNormPiece p = piece(index);
            const double *a = first(range, index), *b = second(range, index);
            if (!by_column_) {
                visit(range, static_cast<double>(p.rows * p.width), *a, *b);
                continue;
            }
            int64_t column = 0;
            while (column < p.width)  // whole runs of the channels of a row
                for (int64_t c = 0; c < channels_ && column < p.width; ++c)
                    for (int64_t i = 0; i < inner_ && column < p.width; ++i, ++column)
                        visit(c, static_cast<double>(p.rows), a[column], b[column]);
        }
    }

    void put_together(int64_t range, T* statistics) {
        const int64_t begin = by_column_ ? 0 : range, end = by_column_ ? channels_ : range + 1;
        double *mean = totals_.data(), *squares = mean + channels_;
        // A mean of no numbers is not a number, as 0 / 0.
        for_partials(range, [&](int64_t c, double numbers, double of_mean, double) { mean[c] += numbers * of_mean; });
        for (int64_t c = begin; c < end; ++c) mean[c] /= static_cast<double>(count_);
        for_partials(range, [&](int64_t c, double numbers, double of_mean, double of_squares) {
            const double step = of_mean - mean[c];
            squares[c] += of_squares + numbers * step * step;
        });
        for (int64_t c = begin; c < end; ++c) {
            statistics[c] = static_cast<T>(mean[c]);
            statistics[channels_ + c] = static_cast<T>(squares[c] / static_cast<double>(count_));
        }
    }

    double inverse(const T* statistics, int64_t c) const {
        return 1.0 / std::sqrt(static_cast<double>(statistics[channels_ + c]) + settings_.eps);
    }

    // What is computed here from the statistics as they are stored is the same in forward and backward, and so is the sign of v.
    void set_forward(int64_t range, const T* statistics) {
        for_columns(range, [&](int64_t column, int64_t c) {
            value(0, column) = statistics[c];
            value(1, column) = static_cast<T>((weight_ ? static_cast<double>(weight_[c]) : 1.0) * inverse(statistics, c));
            value(2, column) = bias_ ? bias_[c] : T(0);
        });
    }

    void set_backward(int64_t range, const T* statistics, bool batch, T* sums) {
        const int64_t begin = by_column_ ? 0 : range, end = by_column_ ? channels_ : range + 1;
        double *plain = totals_.data(), *weighted = plain + channels_;
        for_partials(range, [&](int64_t c, double, double a, double b) { plain[c] += a, weighted[c] += b; });
        for (int64_t c = begin; c < end; ++c) {
            weighted[c] *= inverse(statistics, c);
            sums[c] = static_cast<T>(plain[c]), sums[channels_ + c] = static_cast<T>(weighted[c]);
        }
        const double share = batch ? 1.0 / static_cast<double>(count_) : 0.0;
        for_columns(range, [&](int64_t column, int64_t c) {
            const double factor = static_cast<double>(value(1, column)) * share;
            value(3, column) = static_cast<T>(-factor * weighted[c] * inverse(statistics, c));
            value(4, column) = static_cast<T>(-factor * plain[c]);
        });
    }

    template <class Visit>
    void for_columns(int64_t range, const Visit& visit) {
        if (!by_column_) return visit(range, range);
        int64_t column = 0;
        while (column < width_)
            for (int64_t c = 0; c < channels_; ++c)
                for (int64_t i = 0; i < inner_; ++i) visit(column++, c);
    }

    T& value(int which, int64_t column) { return values_[static_cast<size_t>(which * columns_ + column)]; }
    BatchNormParameters<T> parameters(int64_t range) {
        T* base = values_.data() + (by_column_ ? 0 : range);
        return {base, base + columns_, base + 2 * columns_, base + 3 * columns_, base + 4 * columns_};
    }

    const BatchNormKernel<T>& kernel_;
    DType dtype_;
    int64_t outer_, channels_, inner_, count_;
    BatchNormSettings settings_;
    const T *weight_, *bias_;
    bool by_column_;
    int64_t width_ = 0, rows_ = 0, rows_of_piece_ = 0, whole_ = 0, across_ = 1, pieces_ = 0, ranges_ = 0, columns_ = 0;
    int threads_ = 1;
    std::vector<T> values_, scratch_;
    std::vector<double> partial_, totals_;
};

}  // namespace

void batch_norm(const View& x, const View& weight, const View& bias, const BatchNormSettings& settings, const View& y,
                const View& statistics) {
    ask_for_large_pages(y);
    if (x.dtype == DType::float64) return Run<double>(x, weight, bias, settings).forward(x, y, statistics);
    Run<float>(x, weight, bias, settings).forward(x, y, statistics);
}

void batch_norm_apply(const View& x, const View& statistics, const View& weight, const View& bias, const BatchNormSettings& settings,
                      const View& y) {
    ask_for_large_pages(y);
    if (x.dtype == DType::float64) return Run<double>(x, weight, bias, settings).apply(x, statistics, y);
    Run<float>(x, weight, bias, settings).apply(x, statistics, y);
}

void batch_norm_backward(const View& g, const View& x, const View& statistics, const View& weight, const View& bias,
                         const BatchNormSettings& settings, bool batch, const View& dx, const View& sums) {
    ask_for_large_pages(dx);
    if (x.dtype == DType::float64) return Run<double>(x, weight, bias, settings).backward(g, x, statistics, batch, dx, sums);
    Run<float>(x, weight, bias, settings).backward(g, x, statistics, batch, dx, sums);
}

}  // namespace isotypic::cpu
