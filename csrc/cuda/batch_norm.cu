// batch_norm on a device: one reduction, one small kernel that puts its parts together, and one pass that writes.
//
// Bytes decide, with s bytes a number: forward 2 s to read and s to write, backward 4 s and s, at 3.3 to 8 TB/s on the larger targets. A
// thread keeps the parameters of its channel and, in a reduction, its sums in registers; neighbouring threads read neighbouring numbers,
// eight of them (pairs of float64: four) before the first is used.
// Where a channel has few numbers side by side (channels last), the 32 lanes of a warp own columns of the rows (C I), and the warps of a
// block and the blocks share the rows; otherwise a block owns a part of one channel. The parts lie in the workspace and are added in a
// fixed order. As on the CPU, squares are those of distances from a number of the same channel, and moments are joined.
#include "ops/batch_norm.hpp"

#include "cuda/launch.cuh"
#include "cuda/numbers.cuh"

namespace isotypic {
namespace cuda {
namespace {

constexpr int kThreadsOfNorm = 256, kLanesOfNorm = 32, kWarpsOfNorm = kThreadsOfNorm / kLanesOfNorm;
constexpr int kBlocksOfNorm = 4;  // on a multiprocessor: 64 registers a thread, and 16 KB of 16-bit numbers on the way
constexpr int64_t kNumbersOfBlock = 8192;

// How x is cut. `columns`: lanes are columns of rows of C I numbers, and a piece has some of the rows. Otherwise a piece has rows of at
// most `width` numbers of one channel, `across` such parts in a row.
struct Cut {
    int64_t outer, channels, inner, width, rows, across, pieces, tiles;
    bool columns;

    explicit Cut(const View& x) : outer(x.sizes[0]), channels(x.sizes[1]), inner(x.sizes[2]) {
        columns = inner < kLanesOfNorm;
        width = columns ? channels * inner : inner < kNumbersOfBlock ? inner : kNumbersOfBlock;
        rows = columns ? kNumbersOfBlock / kLanesOfNorm : kNumbersOfBlock / width;
        across = columns ? 1 : (inner + width - 1) / width;
        pieces = across * ((outer + rows - 1) / rows);
        tiles = columns ? (width + kLanesOfNorm - 1) / kLanesOfNorm : channels;
    }
    int64_t grid() const { return tiles * pieces; }
    // Pieces are blocks of a launch, so that 32 bits hold them.
    DEVICE int64_t rows_of(unsigned piece) const {
        const int64_t left = outer - static_cast<int64_t>(piece / static_cast<unsigned>(across)) * rows;
        return left < rows ? left : rows;
    }
    DEVICE int64_t numbers_of(unsigned piece) const {  // of one column, or of one channel
        const int64_t left = inner - static_cast<int64_t>(piece % static_cast<unsigned>(across)) * width;
        return columns ? rows_of(piece) : rows_of(piece) * (left < width ? left : width);
    }
    HOST_DEVICE int64_t parts() const { return columns ? inner : 1; }  // columns of a channel
};

// The channel of this thread, or -1.
struct Place {
    unsigned piece;
    int64_t column, channel;
};
DEVICE Place place_of(const Cut& cut) {
    const unsigned tiles = static_cast<unsigned>(cut.tiles), piece = block_index() / tiles;
    const int64_t tile = block_index() % tiles;
    if (!cut.columns) return {piece, tile, tile};
    const int64_t column = tile * kLanesOfNorm + thread_index() % kLanesOfNorm;
    return {piece, column, column < cut.width ? column / cut.inner : -1};
}

// use(index, load(index)) for every `step`-th index of `count`, from `first` on. kLoads are read before the first is used: what is written may
// alias what is read, and one read at a time would wait for each write.
template <class Load, class Use>
DEVICE void visit_run(int64_t first, int64_t step, int count, const Load& load, const Use& use) {
    constexpr int kLoads = sizeof(load(int64_t{})) > 8 ? 4 : 8;
    int i = 0;
    for (; i + kLoads <= count; i += kLoads, first += kLoads * step) {
        decltype(load(int64_t{})) values[kLoads];
#pragma unroll
        for (int k = 0; k < kLoads; ++k) values[k] = load(first + k * step);
#pragma unroll
        for (int k = 0; k < kLoads; ++k) use(first + k * step, values[k]);
    }
    for (; i < count; ++i, first += step) use(first, load(first));
}

// The same for the numbers of this thread.
template <class Load, class Use>
DEVICE void visit_numbers(const Cut& cut, const Place& place, const Load& load, const Use& use) {
    if (place.channel < 0) return;
    const unsigned across = static_cast<unsigned>(cut.across), piece = place.piece / across;
    const int64_t first = piece * cut.rows, rows = cut.rows_of(place.piece);
    const auto share = [](int64_t numbers, int64_t from, int64_t step) {
        return static_cast<int>(numbers > from ? (numbers - from + step - 1) / step : 0);
    };
    if (cut.columns) {
        const int64_t r = thread_index() / kLanesOfNorm;
        return visit_run((first + r) * cut.width + place.column, kWarpsOfNorm * cut.width, share(rows, r, kWarpsOfNorm), load, use);
    }
    int lanes = kLanesOfNorm;  // along a row
    while (lanes < kThreadsOfNorm && lanes < cut.width) lanes *= 2;
    const int64_t begin = (place.piece - piece * across) * cut.width, left = cut.inner - begin, width = left < cut.width ? left : cut.width;
    const int64_t lane = thread_index() % lanes;
    for (int64_t r = thread_index() / lanes; r < rows; r += kThreadsOfNorm / lanes) {
        const int64_t row = ((first + r) * cut.channels + place.channel) * cut.inner + begin;
        visit_run(row + lane, lanes, share(width, lane, lanes), load, use);
    }
}

// Number, mean and squared distances from it.
template <class A>
struct Moments {
    A count, mean, squares;
    DEVICE void join(const Moments& other) {
        if (other.count == A(0)) return;
        const A share = other.count / (count + other.count), step = other.mean - mean;
        mean += step * share;
        squares += other.squares + step * step * count * share;
        count += other.count;
    }
};
template <class A>
struct Sums {
    A unused, plain, weighted;
    DEVICE void join(const Sums& other) { plain += other.plain, weighted += other.weighted; }
};

// Joins what the threads of a block hold, and writes one pair of numbers for each column, or for the channel.
template <class A, class Held>
DEVICE void write_part(const Cut& cut, const Place& place, const Held& held, A* parts) {
    Held* slots = reinterpret_cast<Held*>(shared_memory());
    slots[thread_index()] = held;
    __syncthreads();
    const int least = cut.columns ? kLanesOfNorm : 1;
    for (int half = kThreadsOfNorm / 2; half >= least; half /= 2) {
        if (thread_index() < half) slots[thread_index()].join(slots[thread_index() + half]);
        __syncthreads();
    }
    if (thread_index() >= least || place.channel < 0) return;
    A values[3];
    memcpy(values, &slots[thread_index()], sizeof values);
    A* part = parts + 2 * (place.piece * cut.channels * cut.parts() + place.column);
    part[0] = values[1], part[1] = values[2];
}

template <class S>
__global__ void __launch_bounds__(kThreadsOfNorm, kBlocksOfNorm) partial_moments(Cut cut, const S* x, Compute<S>* parts) {
    using A = Compute<S>;
    const Place place = place_of(cut);
    A count = 0, pivot = 0, first = 0, second = 0;
    visit_numbers(
        cut, place, [&](int64_t index) { return x[index]; },
        [&](int64_t, S number) {
            const A value = widen(number);
            if (count == A(0)) pivot = value;
            count += A(1);
            const A distance = value - pivot;
            first += distance, second += distance * distance;
        });
    const A mean = count > A(0) ? first / count : A(0);
    write_part(cut, place, Moments<A>{count, pivot + mean, second - first * mean}, parts);
}

// A number of the incoming gradient and one of x.
template <class S>
struct Pair {
    S g, x;
};

template <class A>
struct Channel {
    A center, factor, shift, inverse;
};
template <class A>
DEVICE Channel<A> channel_of(const Cut& cut, int64_t channel, const A* statistics, const A* weight, const A* bias, A eps) {
    if (channel < 0) return {};
    const A inverse = A(1) / sqrt(statistics[cut.channels + channel] + eps);
    return {statistics[channel], (weight ? weight[channel] : A(1)) * inverse, bias ? bias[channel] : A(0), inverse};
}

template <class S>
__global__ void __launch_bounds__(kThreadsOfNorm, kBlocksOfNorm)
    partial_sums(Cut cut, const S* g, const S* x, const Compute<S>* statistics, const Compute<S>* weight, const Compute<S>* bias,
                 Compute<S> eps, bool relu, Compute<S>* parts) {
    using A = Compute<S>;
    const Place place = place_of(cut);
    const Channel<A> c = channel_of(cut, place.channel, statistics, weight, bias, eps);
    Sums<A> sums{0, 0, 0};
    visit_numbers(
        cut, place, [&](int64_t index) { return Pair<S>{g[index], x[index]}; },
        [&](int64_t, Pair<S> pair) {
            const A distance = widen(pair.x) - c.center;
            if (relu && distance * c.factor + c.shift <= A(0)) return;
            const A h = widen(pair.g);
            sums.plain += h, sums.weighted += h * distance;
        });
    write_part(cut, place, sums, parts);
}

// One block a channel; its threads deal the parts among them and are joined by halves, in an order that does not depend on the device.
// Moments give mean and variance; sums, with statistics, the second one times the inverse deviation.
template <class A>
__global__ void __launch_bounds__(kThreadsOfNorm, kBlocksOfNorm) put_together(Cut cut, const A* parts, const A* statistics, A eps, A* out) {
    const int64_t channel = block_index();
    const unsigned columns = static_cast<unsigned>(cut.parts()), count = static_cast<unsigned>(cut.pieces) * columns;
    auto* slots = reinterpret_cast<Moments<double>*>(shared_memory());
    const auto join = [&](Moments<double>& total, const Moments<double>& other) {
        if (statistics)
            total.mean += other.mean, total.squares += other.squares;
        else
            total.join(other);
    };
    Moments<double> total{0, 0, 0};
    for (unsigned p = thread_index(); p < count; p += kThreadsOfNorm) {
        const unsigned piece = p / columns;
        const A* part = parts + 2 * ((piece * cut.channels + channel) * columns + (p - piece * columns));
        join(total, {statistics ? 0.0 : static_cast<double>(cut.numbers_of(piece)), part[0], part[1]});
    }
    slots[thread_index()] = total;
    __syncthreads();
    for (int half = kThreadsOfNorm / 2; half > 0; half /= 2) {
        if (thread_index() < half) join(slots[thread_index()], slots[thread_index() + half]);
        __syncthreads();
    }
    if (thread_index()) return;
    total = slots[0];
    const double scale = statistics ? 1.0 / sqrt(static_cast<double>(statistics[cut.channels + channel]) + eps) : 1.0 / total.count;
    out[channel] = static_cast<A>(total.mean);
    out[cut.channels + channel] = static_cast<A>(total.squares * scale);
}

template <class S>
__global__ void __launch_bounds__(kThreadsOfNorm, kBlocksOfNorm)
    normalise(Cut cut, const S* x, const Compute<S>* statistics, const Compute<S>* weight, const Compute<S>* bias, Compute<S> eps,
              bool relu, S* y) {
    using A = Compute<S>;
    const Place place = place_of(cut);
    const Channel<A> c = channel_of(cut, place.channel, statistics, weight, bias, eps);
    visit_numbers(
        cut, place, [&](int64_t index) { return x[index]; },
        [&](int64_t index, S number) {
            const A v = (widen(number) - c.center) * c.factor + c.shift;
            y[index] = narrow<S>(relu && v < A(0) ? A(0) : v);
        });
}

// `share` is 1 / n where the statistics are those of x, otherwise 0.
template <class S>
__global__ void __launch_bounds__(kThreadsOfNorm, kBlocksOfNorm)
    gradient(Cut cut, const S* g, const S* x, const Compute<S>* statistics, const Compute<S>* weight, const Compute<S>* bias,
             Compute<S> eps, bool relu, Compute<S> share, const Compute<S>* sums, S* dx) {
    using A = Compute<S>;
    const Place place = place_of(cut);
    const Channel<A> c = channel_of(cut, place.channel, statistics, weight, bias, eps);
    A slope = 0, offset = 0;
    if (place.channel >= 0) {
        slope = -share * c.factor * c.inverse * sums[cut.channels + place.channel];
        offset = -share * c.factor * sums[place.channel];
    }
    visit_numbers(
        cut, place, [&](int64_t index) { return Pair<S>{g[index], x[index]}; },
        [&](int64_t index, Pair<S> pair) {
            const A distance = widen(pair.x) - c.center;
            const A h = relu && distance * c.factor + c.shift <= A(0) ? A(0) : widen(pair.g);
            dx[index] = narrow<S>(h * c.factor + (distance * slope + offset));
        });
}

template <class T>
T* at(const View& view) {
    return static_cast<T*>(view.data);
}

template <class S>
void launch_normalise(const Cut& cut, const View& x, const View& statistics, const View& weight, const View& bias,
                      const BatchNormSettings& settings, const View& y, void* stream) {
    using A = Compute<S>;
    launch("batch_norm", normalise<S>, cut.grid(), kThreadsOfNorm, 0, stream, cut, at<const S>(x), at<const A>(statistics),
           at<const A>(weight), at<const A>(bias), static_cast<A>(settings.eps), settings.relu, at<S>(y));
}

}  // namespace

int64_t batch_norm_workspace(const View& x) {
    const Cut cut(x);
    return 2 * cut.pieces * cut.channels * cut.parts() * (x.dtype == DType::float64 ? 8 : 4);
}

void batch_norm(const View& x, const View& weight, const View& bias, const BatchNormSettings& settings, const View& y,
                const View& statistics, const BatchNormContext& context) {
    const Cut cut(x);
    with_type(x.dtype, [&](auto zero) {
        using S = decltype(zero);
        using A = Compute<S>;
        A* parts = static_cast<A*>(context.workspace);
        launch("batch_norm", partial_moments<S>, cut.grid(), kThreadsOfNorm, sizeof(Moments<A>) * kThreadsOfNorm, context.stream, cut,
               at<const S>(x), parts);
        launch("batch_norm", put_together<A>, cut.channels, kThreadsOfNorm, sizeof(Moments<double>) * kThreadsOfNorm, context.stream, cut,
               static_cast<const A*>(parts), static_cast<const A*>(nullptr), A(0), at<A>(statistics));
        launch_normalise<S>(cut, x, statistics, weight, bias, settings, y, context.stream);
    });
}

void batch_norm_apply(const View& x, const View& statistics, const View& weight, const View& bias, const BatchNormSettings& settings,
                      const View& y, const BatchNormContext& context) {
    with_type(x.dtype,
              [&](auto zero) { launch_normalise<decltype(zero)>(Cut(x), x, statistics, weight, bias, settings, y, context.stream); });
}

void batch_norm_backward(const View& g, const View& x, const View& statistics, const View& weight, const View& bias,
                         const BatchNormSettings& settings, bool batch, const View& dx, const View& sums, const BatchNormContext& context) {
    const Cut cut(x);
    with_type(x.dtype, [&](auto zero) {
        using S = decltype(zero);
        using A = Compute<S>;
        A* parts = static_cast<A*>(context.workspace);
        const A eps = static_cast<A>(settings.eps), share = batch ? static_cast<A>(1.0 / static_cast<double>(cut.outer * cut.inner)) : A(0);
        launch("batch_norm_backward", partial_sums<S>, cut.grid(), kThreadsOfNorm, sizeof(Sums<A>) * kThreadsOfNorm, context.stream, cut,
               at<const S>(g), at<const S>(x), at<const A>(statistics), at<const A>(weight), at<const A>(bias), eps, settings.relu, parts);
        launch("batch_norm_backward", put_together<A>, cut.channels, kThreadsOfNorm, sizeof(Moments<double>) * kThreadsOfNorm,
               context.stream, cut, static_cast<const A*>(parts), at<const A>(statistics), eps, at<A>(sums));
        launch("batch_norm_backward", gradient<S>, cut.grid(), kThreadsOfNorm, 0, context.stream, cut, at<const S>(g), at<const S>(x),
               at<const A>(statistics), at<const A>(weight), at<const A>(bias), eps, settings.relu, share, static_cast<const A*>(sums.data),
               at<S>(dx));
    });
}

}  // namespace cuda
}  // namespace isotypic
