// Runs CUDA kernels on the host, to check their index arithmetic, barriers and fragment layouts where there is no device.
//
// A kernel source compiled by g++ with -DISOTYPIC_EMULATE includes this file in place of the CUDA headers. Blocks run one after the other,
// and the threads of a block are fibers (ucontext) that run until they meet at a barrier: __syncthreads for the block, the exchanges below
// for a warp. Shared memory starts as NaN patterns, asynchronous copies happen when they are waited for and not before, and threads, warps and
// blocks can be run in reverse or random order: a missing barrier or wait then changes the result instead of going unseen. What never changes
// a result an Observer can see: checker.cpp is one.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
    dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

using cudaStream_t = void*;

namespace isotypic::emulation {

constexpr int kWarp = 32;
constexpr size_t kStackBytes = 128 * 1024;

struct PendingCopy {
    char* target;
    const char* source;
    int bytes;  // 0: fill with zeros
    int size;
};

struct Fiber {
    enum class State { ready, at_warp_barrier, at_block_barrier, done };
    ucontext_t context;
    std::unique_ptr<char[]> stack;
    State state = State::done;
    std::vector<PendingCopy> copies;
    bool ordered = false;  // the barrier of the warp that it waits at orders memory
};

// Is told what happens. Code addresses are those of the callers.
class Observer {
  public:
    virtual ~Observer() = default;
    virtual void launch(int threads, char* shared, size_t bytes, size_t slack) = 0;
    virtual void finish() = 0;  // the launch
    virtual void block(unsigned index) = 0;
    virtual void block_barrier() = 0;                       // all threads have met
    virtual void warp_barrier(int warp, bool ordered) = 0;  // all lanes have; __syncwarp orders memory, an exchange does not
    virtual void resume(int thread, const char* stack, size_t bytes) = 0;
    virtual void pause() = 0;
    virtual void copy_issued(void* target, const void* source, int size, bool valid, void* code) = 0;
    virtual void copy_done(void* target, int size) = 0;
    virtual void matrices_read(const char* const (&rows)[32], void* code) = 0;
    // Memory of an argument, and scratch: where the kernels shall find it. finish() brings what they wrote back.
    virtual void* tensor(void* data, size_t bytes, size_t align) = 0;
    virtual char* scratch(size_t bytes) = 0;
};

// One block at a time.
struct Machine {
    std::vector<std::unique_ptr<Fiber>> fibers;
    std::vector<char> shared_storage;
    char* shared = nullptr;
    ucontext_t scheduler;
    std::function<void()> body;
    int thread = 0, threads = 0;
    unsigned block = 0, grid = 1;
    // What a warp exchanges: 32 slots of 64 bytes, two sets in turn, so that one barrier separates an exchange from the next.
    std::vector<char> exchange;
    std::vector<int> turn;
    bool reverse = false;
    std::unique_ptr<std::mt19937> random;  // of the order of threads, warps and blocks
    Observer* observer = nullptr;
    size_t shared_limit = 99 * 1024;  // of sm_86 and sm_120, the smallest of the targets
    int launches = 0;
};

inline Machine& machine() {
    static Machine instance;
    return instance;
}

inline void pause(Fiber::State state) {
    Machine& m = machine();
    Fiber& fiber = *m.fibers[m.thread];
    fiber.state = state;
    swapcontext(&fiber.context, &m.scheduler);
}

inline void fiber_main() {
    machine().body();
    pause(Fiber::State::done);
}

inline void resume(int thread) {
    Machine& m = machine();
    m.thread = thread;
    if (m.observer) m.observer->resume(thread, m.fibers[thread]->stack.get(), kStackBytes);
    swapcontext(&m.scheduler, &m.fibers[thread]->context);
    if (m.observer) m.observer->pause();
}

// 0 to count - 1 in the order of the machine.
inline std::vector<int> sequence(int count) {
    Machine& m = machine();
    std::vector<int> order(count);
    std::iota(order.begin(), order.end(), 0);
    if (m.reverse) std::reverse(order.begin(), order.end());
    if (m.random) std::shuffle(order.begin(), order.end(), *m.random);
    return order;
}

// Runs a warp until all its threads wait for the block or have returned.
inline void run_warp(int first, int last) {
    Machine& m = machine();
    for (;;) {
        int at_warp = 0;
        for (int i : sequence(last - first))
            if (m.fibers[first + i]->state == Fiber::State::ready) resume(first + i);
        for (int i = first; i < last; ++i) at_warp += m.fibers[i]->state == Fiber::State::at_warp_barrier;
        if (at_warp == 0) return;
        if (at_warp != last - first) throw std::runtime_error("emulation: the threads of a warp diverge at an exchange");
        for (int i = first; i < last; ++i)
            if (m.fibers[i]->ordered != m.fibers[first]->ordered)
                throw std::runtime_error("emulation: the threads of a warp wait at different barriers");
        if (m.observer) m.observer->warp_barrier(first / kWarp, m.fibers[first]->ordered);
        for (int i = first; i < last; ++i) m.fibers[i]->state = Fiber::State::ready;
    }
}

inline void run_block() {
    Machine& m = machine();
    std::memset(m.shared, 0xff, m.shared_storage.size() - (m.shared - m.shared_storage.data()));
    for (int i = 0; i < m.threads; ++i) {
        Fiber& fiber = *m.fibers[i];
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.get();
        fiber.context.uc_stack.ss_size = kStackBytes;
        fiber.context.uc_link = nullptr;
        makecontext(&fiber.context, fiber_main, 0);
        fiber.state = Fiber::State::ready;
        fiber.copies.clear();
    }
    if (m.observer) m.observer->block(m.block);
    for (;;) {
        int done = 0, waiting = 0;
        for (int warp : sequence(m.threads / kWarp)) run_warp(warp * kWarp, (warp + 1) * kWarp);
        if (m.observer) m.observer->block_barrier();
        for (int i = 0; i < m.threads; ++i) {
            done += m.fibers[i]->state == Fiber::State::done;
            waiting += m.fibers[i]->state == Fiber::State::at_block_barrier;
        }
        if (done == m.threads) return;
        if (waiting != m.threads)
            throw std::runtime_error("emulation: some threads of a block returned while others wait at __syncthreads");
        for (int i = 0; i < m.threads; ++i) m.fibers[i]->state = Fiber::State::ready;
    }
}

template <class... Parameters, class... Arguments>
void run(void (*kernel)(Parameters...), unsigned grid, int threads, size_t shared_bytes, Arguments... arguments) {
    Machine& m = machine();
    if (threads % kWarp != 0 || threads > 1024)
        throw std::runtime_error("emulation: a block must have a multiple of 32 and at most 1024 threads");
    if (shared_bytes > m.shared_limit) throw std::runtime_error("emulation: more shared memory than a block may have");
    while (static_cast<int>(m.fibers.size()) < threads) {
        m.fibers.push_back(std::make_unique<Fiber>());
        m.fibers.back()->stack.reset(new char[kStackBytes]);
    }
    const size_t slack = m.observer ? 1024 : 0;  // where a checker sees accesses past the end
    m.shared_storage.assign(shared_bytes + 128 + slack, 0);
    m.shared = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(m.shared_storage.data()) + 127) & ~uintptr_t{127});
    m.exchange.assign(size_t{2} * threads * 64, 0);
    m.turn.assign(threads, 0);
    m.threads = threads;
    m.grid = grid;
    ++m.launches;
    m.body = [=] { kernel(arguments...); };
    if (m.observer) m.observer->launch(threads, m.shared, shared_bytes, slack);
    for (int block : sequence(static_cast<int>(grid))) {
        m.block = static_cast<unsigned>(block);
        run_block();
    }
    if (m.observer) m.observer->finish();
}

// __syncwarp.
inline void sync_warp() {
    Machine& m = machine();
    m.fibers[m.thread]->ordered = true;
    pause(Fiber::State::at_warp_barrier);
    m.fibers[m.thread]->ordered = false;
}

// Every lane posts `value`; returns a function of the lane that reads what the lane posted.
template <class T>
class Exchange {
  public:
    explicit Exchange(const T& value) {
        static_assert(sizeof(T) <= 64);
        Machine& m = machine();
        const int turn = m.turn[m.thread]++ & 1;
        first_ = m.exchange.data() + (size_t{static_cast<unsigned>(turn)} * m.threads + m.thread / kWarp * kWarp) * 64;
        std::memcpy(first_ + m.thread % kWarp * 64, &value, sizeof(T));
        pause(Fiber::State::at_warp_barrier);
    }
    T operator[](int lane) const {
        T value;
        std::memcpy(&value, first_ + lane * 64, sizeof(T));
        return value;
    }

  private:
    char* first_;
};

inline int lane() {
    return machine().thread % kWarp;
}

// ---- the instructions the kernels use
// -------------------------------------------------------------------------------------------------------

// ldmatrix.sync.x4: four 8x8 matrices of 16-bit elements; lane 8 i + r gives the address of row r of matrix i.
inline void ldmatrix_x4(uint32_t (&words)[4], const void* row) {
    const Exchange<const char*> rows(static_cast<const char*>(row));
    if (machine().observer && lane() == 0) {
        const char* all[32];
        for (int i = 0; i < 32; ++i) all[i] = rows[i];
        machine().observer->matrices_read(all, __builtin_return_address(0));
    }
    for (int i = 0; i < 4; ++i) std::memcpy(&words[i], rows[8 * i + lane() / 4] + 4 * (lane() % 4), 4);
}

struct Fragments {
    uint32_t a[4], b[2];
};

// mma.sync.m16n8: C (16, 8) += A (16, k) B (k, 8). `element(word, half)` reads the number a 32-bit register holds; `per_word` numbers in
// each.
template <class Element>
void mma(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], int per_word, Element element) {
    Fragments own;
    std::memcpy(own.a, a, sizeof own.a);
    std::memcpy(own.b, b, sizeof own.b);
    const Exchange<Fragments> all(own);
    const int group = lane() / 4, column = 2 * (lane() % 4);
    Fragments rows[4], columns[2][4];
    for (int t = 0; t < 4; ++t) {
        rows[t] = all[group * 4 + t];
        for (int j = 0; j < 2; ++j) columns[j][t] = all[(column + j) * 4 + t];
    }
    for (int i = 0; i < 4; ++i) {
        double sum = c[i];
        for (int t = 0; t < 4; ++t)
            for (int half = 0; half < 2; ++half)  // registers a[0..1] hold the first half of the inner index, a[2..3] the second
                for (int n = 0; n < per_word; ++n)
                    sum += static_cast<double>(element(rows[t].a[half * 2 + i / 2], n)) * element(columns[i % 2][t].b[half], n);
        c[i] = static_cast<float>(sum);
    }
}

inline void copy_async(void* target, const void* source, int size, bool valid) {
    Machine& m = machine();
    if (reinterpret_cast<uintptr_t>(target) % size || (valid && reinterpret_cast<uintptr_t>(source) % size))
        throw std::runtime_error("emulation: a misaligned asynchronous copy");
    if (m.observer) m.observer->copy_issued(target, source, size, valid, __builtin_return_address(0));
    m.fibers[m.thread]->copies.push_back({static_cast<char*>(target), static_cast<const char*>(source), valid ? size : 0, size});
}

inline void wait_for_copies() {
    Machine& m = machine();
    for (const PendingCopy& copy : m.fibers[m.thread]->copies) {
        if (m.observer) m.observer->copy_done(copy.target, copy.size);
        if (copy.bytes)
            std::memcpy(copy.target, copy.source, copy.bytes);
        else
            std::memset(copy.target, 0, copy.size);
    }
    m.fibers[m.thread]->copies.clear();
}

}  // namespace isotypic::emulation

inline void __syncthreads() {
    isotypic::emulation::pause(isotypic::emulation::Fiber::State::at_block_barrier);
}
