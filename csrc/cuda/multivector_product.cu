// multivector_product on a device: one multivector to a thread, all of it in registers.
//
// 192 multiply-adds and 192 bytes in float32: bound by memory on every target. The 48 numbers of a thread would be read 64 bytes apart, so
// that a block copies its rows through shared memory, at neighbouring addresses; rows there are 17 numbers apart, which puts the 32 threads
// of a warp on 32 banks.
#include "ops/multivector_product.hpp"

#include "core/algebra.hpp"
#include "cuda/launch.cuh"
#include "cuda/numbers.cuh"

namespace isotypic {
namespace cuda {
namespace {

constexpr int kBlock = 128, kPitch = kMultivector + 1;

// Where the multivectors of an operand lie: those of row n, channel c at n row + c channel.
struct Strides {
    int64_t row, channel;
};

DEVICE int64_t place(Strides strides, int channels, int64_t index) {
    return index / channels * strides.row + index % channels * strides.channel;
}

template <class T>
DEVICE void read_block(const T* from, Strides strides, int channels, int64_t first, int here, Compute<T>* to) {
    for (int i = thread_index(); i < here * kMultivector; i += kBlock) {
        const int64_t at = place(strides, channels, first + i / kMultivector);
        to[i / kMultivector * kPitch + i % kMultivector] = widen(from[at + i % kMultivector]);
    }
}

template <class T, class Product>
__global__ void __launch_bounds__(kBlock) products(const T* a, Strides of_a, const T* b, Strides of_b, const T* scale, Strides of_scale,
                                                   T* z, Strides of_z, int64_t count, int channels) {
    using C = Compute<T>;
    C* tile = reinterpret_cast<C*>(shared_memory());
    const int64_t first = static_cast<int64_t>(block_index()) * kBlock;
    const int here = static_cast<int>(count - first < kBlock ? count - first : kBlock);
    C x[kMultivector], y[kMultivector], r[kMultivector];
    C* mine = tile + thread_index() * kPitch;
    read_block(a, of_a, channels, first, here, tile);
    __syncthreads();
    for (int i = 0; i < kMultivector; ++i) x[i] = thread_index() < here ? mine[i] : C{};
    __syncthreads();
    read_block(b, of_b, channels, first, here, tile);
    __syncthreads();
    for (int i = 0; i < kMultivector; ++i) y[i] = thread_index() < here ? mine[i] : C{};
    Product::apply(x, y, r);
    __syncthreads();
    if (thread_index() < here) {
        const C factor = scale ? widen(scale[place(of_scale, channels, first + thread_index())]) : C{1};
        for (int i = 0; i < kMultivector; ++i) mine[i] = r[i] * factor;
    }
    __syncthreads();
    for (int i = thread_index(); i < here * kMultivector; i += kBlock)
        z[place(of_z, channels, first + i / kMultivector) + i % kMultivector] =
            narrow<T>(tile[i / kMultivector * kPitch + i % kMultivector]);
}

template <class T, class Product>
void run(const View& a, const View& b, const View& scale, const View& z, void* stream) {
    const int64_t count = a.sizes[0] * a.sizes[1];
    launch("multivector_product", products<T, Product>, (count + kBlock - 1) / kBlock, kBlock, kBlock * kPitch * sizeof(Compute<T>), stream,
           static_cast<const T*>(a.data), Strides{a.strides[0], a.strides[1]}, static_cast<const T*>(b.data),
           Strides{b.strides[0], b.strides[1]}, static_cast<const T*>(scale.data), Strides{scale.strides[0], scale.strides[1]},
           static_cast<T*>(z.data), Strides{z.strides[0], z.strides[1]}, count, static_cast<int>(a.sizes[1]));
}

template <class T>
void choose(int product, const View& a, const View& b, const View& scale, const View& z, void* stream) {
    int place = 0;
#define RUN(name, Product) \
    if (place++ == product) return run<T, algebra::Product>(a, b, scale, z, stream);
    ISOTYPIC_ALGEBRA_PRODUCTS(RUN)
#undef RUN
}

}  // namespace

void multivector_product(int product, const View& a, const View& b, const View& scale, const View& z, void* stream) {
    with_type(a.dtype, [&](auto number) { choose<decltype(number)>(product, a, b, scale, z, stream); });
}

}  // namespace cuda
}  // namespace isotypic
