// Looks at every memory access of emulated kernels. Kernels are not touched: the compiler's own instrumentation (-fsanitize=thread) calls
// the functions __tsan_* at the end of this file, which is linked in place of that sanitizer's runtime and compiled without it.
//
// Of shared memory, for every two bytes, it knows who wrote and read it last and between which barriers, so that it finds
//     races           two threads, one of them writing, with no barrier of the block between them, nor of the warp where both are in one
//     early access    to what an asynchronous copy of the thread writes, before it has waited for it
//     uninitialised   reads
//     out of bounds   accesses up to 1 KB past the end
//     bank conflicts  wavefronts of each access instruction beside those without conflicts
// and of tensors and scratch, which are moved to pages of their own with unreadable pages on both sides,
//     races           between blocks, and between threads of a block with no barrier between them
//     out of bounds   accesses, to the byte; those past the page end the process, after the report
//     misaligned      accesses
//     uninitialised   reads of scratch
// The compiler tells of no store by which a function returns a structure straight into memory: a function whose result goes to shared memory
// is ALWAYS_INLINE, or its fields would count as unwritten.
// A report is a line "kind | code address | the other access's | details", written at once to a file and kept for reports().
#include <dlfcn.h>
#include <sys/mman.h>

#include <cstdio>
#include <map>
#include <set>
#include <string>
#include <unordered_map>

#include "cuda/emulation/module.hpp"

namespace isotypic::emulation {
namespace {

constexpr size_t kCell = 2, kPage = 4096;
constexpr size_t kLargest = size_t{1} << 30;  // tensors above are left where they are
constexpr int kBanks = 32;
constexpr int kBlockStride = 1024;  // threads of a launch are numbered block * kBlockStride + thread

struct SharedCell {
    uint64_t write_epoch = 0, write_warp_epoch = 0, read_epoch = 0, read_warp_epoch = 0;
    uint32_t readers = 0;  // warps that read in read_epoch
    int writer = -1, reader = -1;
    bool many_readers = false;  // of the last reader's warp, in read_warp_epoch
    bool pending = false;       // an asynchronous copy has been issued and not waited for
    void *write_code = nullptr, *read_code = nullptr;
};

struct GlobalCell {
    uint64_t write_launch = 0, write_epoch = 0, write_warp_epoch = 0, read_launch = 0, read_epoch = 0, read_warp_epoch = 0;
    int64_t writer = -1, reader = -1;
    // Who else read it: another block in this launch, another warp since the block's barrier, another thread since the warp's.
    bool other_blocks = false, other_warps = false, other_threads = false;
    void *write_code = nullptr, *read_code = nullptr;
};

// A tensor or scratch, as near to a page that cannot be read as its alignment allows.
struct Region {
    char *pages = nullptr, *data = nullptr, *original = nullptr;
    size_t page_bytes = 0, bytes = 0;
    std::vector<GlobalCell> cells;
    std::vector<char> before;
    bool scratch = false;
};

struct Access {
    void* code;
    int occurrence, lane;  // the same code in one lane, between two barriers
    size_t address;
    int size;
    bool write;
};

struct Conflicts {
    int64_t requests = 0, wavefronts = 0, least = 0;
    int size = 0;
    bool write = false;
};

std::string place_of(void* code) {
    if (!code) return "-";
    Dl_info info{};
    char text[512];
    if (dladdr(code, &info) && info.dli_fname)
        snprintf(text, sizeof text, "%s+0x%zx", info.dli_fname,
                 static_cast<size_t>(static_cast<char*>(code) - static_cast<char*>(info.dli_fbase)) - 1);
    else
        snprintf(text, sizeof text, "%p", code);
    return text;
}

class Checker : public Observer {
  public:
    std::vector<std::string> reports;
    std::map<void*, Conflicts> conflicts;
    int64_t shared_accesses = 0, global_accesses = 0;

    // Forgets what was seen.
    void begin(const std::string& log, bool banks, bool from_left) {
        log_ = log, banks_ = banks, from_left_ = from_left;
        reports.clear(), seen_.clear(), conflicts.clear();
        shared_accesses = global_accesses = 0;
    }

    void launch(int threads, char* shared, size_t bytes, size_t slack) override {
        threads_ = threads, shared_ = shared, shared_bytes_ = bytes, slack_ = slack;
        cells_.assign(bytes / kCell + 1, SharedCell{});
        warp_epoch_.assign(threads / kWarp, 1);
        accesses_.assign(threads / kWarp, {});
        occurrence_.assign(threads, {});
        ++launch_;
    }
    void finish() override {
        for (Region& region : regions_)
            if (region.original && std::memcmp(region.before.data(), region.data, region.bytes) != 0) {
                std::memcpy(region.original, region.data, region.bytes);
                std::memcpy(region.before.data(), region.data, region.bytes);
            }
    }
    void block(unsigned index) override {
        block_ = index, block_start_ = ++epoch_;
        for (SharedCell& cell : cells_) cell.pending = false;
    }
    void block_barrier() override {
        ++epoch_;
        for (int w = 0; w < threads_ / kWarp; ++w) count_conflicts(w);
    }
    void warp_barrier(int warp, bool ordered) override {
        warp_epoch_[warp] += ordered;
        count_conflicts(warp);
    }
    void resume(int thread, const char* stack, size_t bytes) override {
        thread_ = thread, stack_ = stack, stack_bytes_ = bytes, running_ = true;
    }
    void pause() override { running_ = false; }

    void copy_issued(void* target, const void* source, int size, bool valid, void* code) override {
        if (valid) access(source, size, false, code);
        shared_access(target, size, true, code, true);
        visit_cells(target, size, [](SharedCell& cell) { cell.pending = true; });
    }
    void copy_done(void* target, int size) override {
        visit_cells(target, size, [](SharedCell& cell) { cell.pending = false; });
        shared_access(target, size, true, __builtin_return_address(0), true);
    }
    void matrices_read(const char* const (&rows)[32], void* code) override {
        if (!banks_) return;
        Conflicts& found = conflicts[code];
        found.size = 16, ++found.requests;
        for (int matrix = 0; matrix < 4; ++matrix) {
            std::set<size_t> words;
            for (int r = 0; r < 8; ++r)
                for (int i = 0; i < 4; ++i) words.insert((rows[8 * matrix + r] - shared_) / 4 + i);
            found.wavefronts += wavefronts(words), ++found.least;
        }
    }

    void* tensor(void* data, size_t bytes, size_t align) override {
        if (!data || !bytes || bytes > kLargest) return data;
        Region& region = add(bytes, align, from_left_);
        std::memcpy(region.data, data, bytes);
        region.original = static_cast<char*>(data);
        region.before.assign(region.original, region.original + bytes);
        return region.data;
    }
    char* scratch(size_t bytes) override {
        Region& region = add(bytes, 256, false);
        region.scratch = true;
        return region.data;
    }

    void write(const std::string& line) const {
        if (log_.empty()) return;
        if (FILE* file = fopen(log_.c_str(), "a")) {
            fprintf(file, "%s\n", line.c_str());
            fclose(file);
        }
    }

    // Called by the instrumentation.
    void access(const void* pointer, size_t size, bool write, void* code) {
        if (!running_ || inside_) return;
        inside_ = true;  // the containers of this class may be instrumented: one copy of a template is kept of all
        find(pointer, size, write, code);
        inside_ = false;
    }

  private:
    void find(const void* pointer, size_t size, bool write, void* code) {
        const auto* at = static_cast<const char*>(pointer);
        if (at >= stack_ && at < stack_ + stack_bytes_) return;
        if (at >= shared_ && at < shared_ + shared_bytes_ + slack_) {
            if (banks_)
                accesses_[thread_ / kWarp].push_back({code, occurrence_[thread_][code]++, thread_ % kWarp,
                                                      static_cast<size_t>(at - shared_), static_cast<int>(size), write});
            return shared_access(pointer, size, write, code, false);
        }
        for (Region& region : regions_)
            if (at >= region.pages && at < region.pages + region.page_bytes) return global_access(region, at, size, write, code);
    }

    template <class Visit>
    void visit_cells(const void* pointer, size_t size, const Visit& visit) {
        const size_t at = static_cast<const char*>(pointer) - shared_;
        if (at + size > shared_bytes_) return;
        for (size_t c = at / kCell; c <= (at + size - 1) / kCell; ++c) visit(cells_[c]);
    }

    void shared_access(const void* pointer, size_t size, bool write, void* code, bool asynchronous) {
        const size_t at = static_cast<const char*>(pointer) - shared_;
        char text[256];
        if (at + size > shared_bytes_) {
            snprintf(text, sizeof text, "byte %zu of %zu, %zu bytes, thread %d, block %u", at, shared_bytes_, size, thread_, block_);
            return report(write ? "shared write out of bounds" : "shared read out of bounds", code, nullptr, text);
        }
        if (size <= 16 && (size & (size - 1)) == 0 && at % size) report("misaligned shared access", code, nullptr, "");
        ++shared_accesses;
        const int warp = thread_ / kWarp;
        const uint64_t within = warp_epoch_[warp];
        visit_cells(pointer, size, [&](SharedCell& cell) {
            const auto tell = [&](const char* kind, void* other) {
                snprintf(text, sizeof text, "byte %zu, thread %d, last written by %d and read by %d, block %u", at, thread_, cell.writer,
                         cell.reader, block_);
                report(kind, code, other, text);
            };
            if (cell.pending && !asynchronous) tell("access before the wait for a copy", cell.write_code);
            if (cell.write_epoch == epoch_ && cell.writer != thread_ && (cell.writer / kWarp != warp || cell.write_warp_epoch == within))
                tell(write ? "shared race of two writes" : "shared race of a read after a write", cell.write_code);
            if (write && cell.read_epoch == epoch_) {
                const bool same =
                    cell.reader / kWarp == warp && cell.read_warp_epoch == within && (cell.reader != thread_ || cell.many_readers);
                if ((cell.readers & ~(1u << warp)) != 0 || same) tell("shared race of a write after a read", cell.read_code);
            }
            if (!write && cell.write_epoch < block_start_) tell("read of uninitialised shared memory", nullptr);
            if (write) {
                cell.write_epoch = epoch_, cell.write_warp_epoch = within, cell.writer = thread_, cell.write_code = code;
                return;
            }
            if (cell.read_epoch != epoch_) cell.readers = 0;
            const bool together = cell.read_epoch == epoch_ && cell.read_warp_epoch == within && cell.reader / kWarp == warp;
            cell.many_readers = together && (cell.many_readers || cell.reader != thread_);
            cell.read_epoch = epoch_, cell.read_warp_epoch = within, cell.readers |= 1u << warp, cell.reader = thread_,
            cell.read_code = code;
        });
    }

    void global_access(Region& region, const char* pointer, size_t size, bool write, void* code) {
        const ptrdiff_t at = pointer - region.data;
        const char* what = region.scratch ? "scratch" : "tensor";
        char text[256];
        if (at < 0 || at + size > region.bytes) {
            snprintf(text, sizeof text, "byte %td of %zu of a %s, %zu bytes, thread %d, block %u", at, region.bytes, what, size, thread_,
                     block_);
            return report(write ? "global write out of bounds" : "global read out of bounds", code, nullptr, text);
        }
        if (size <= 16 && (size & (size - 1)) == 0 && reinterpret_cast<uintptr_t>(pointer) % size)
            report("misaligned global access", code, nullptr, "");
        ++global_accesses;
        const int64_t me = static_cast<int64_t>(block_) * kBlockStride + thread_;
        const uint64_t within = warp_epoch_[thread_ / kWarp];
        const auto same_block = [&](int64_t other) { return other / kBlockStride == block_; };
        const auto same_warp = [&](int64_t other) { return other / kWarp == me / kWarp; };
        for (size_t c = at / kCell; c <= (at + size - 1) / kCell; ++c) {
            GlobalCell& cell = region.cells[c];
            const auto tell = [&](const char* kind, void* other) {
                snprintf(text, sizeof text, "byte %zu of a %s, block %u thread %d, last written by block %d thread %d", c * kCell, what,
                         block_, thread_, static_cast<int>(cell.writer / kBlockStride), static_cast<int>(cell.writer % kBlockStride));
                report(kind, code, other, text);
            };
            const bool written_before =
                same_block(cell.writer) && (cell.write_epoch != epoch_ || (same_warp(cell.writer) && cell.write_warp_epoch != within));
            if (cell.write_launch == launch_ && cell.writer != me && !written_before)
                tell(write ? "global race of two writes" : "global race of a read after a write", cell.write_code);
            const bool read_in_block = cell.read_launch == launch_ && same_block(cell.reader);
            const bool read_in_epoch = read_in_block && cell.read_epoch == epoch_;
            const bool read_in_warp = read_in_epoch && same_warp(cell.reader) && cell.read_warp_epoch == within;
            if (write && cell.read_launch == launch_ &&
                (cell.other_blocks || !read_in_block || (read_in_epoch && (cell.other_warps || !same_warp(cell.reader))) ||
                 (read_in_warp && (cell.other_threads || cell.reader != me))))
                tell("global race of a write after a read", cell.read_code);
            if (!write && region.scratch && cell.write_launch == 0) tell("read of uninitialised scratch", nullptr);
            if (write) {
                cell.write_launch = launch_, cell.write_epoch = epoch_, cell.write_warp_epoch = within, cell.writer = me;
                cell.write_code = code;
            } else {
                cell.other_blocks = cell.read_launch == launch_ && (cell.other_blocks || !read_in_block);
                cell.other_warps = read_in_epoch && (cell.other_warps || !same_warp(cell.reader));
                cell.other_threads = read_in_warp && (cell.other_threads || cell.reader != me);
                cell.read_launch = launch_, cell.read_epoch = epoch_, cell.read_warp_epoch = within, cell.reader = me;
                cell.read_code = code;
            }
        }
    }

    // Once for each pair of code addresses.
    void report(const char* kind, void* code, void* other, const char* details) {
        if (!seen_.insert({kind, code, other}).second) return;
        reports.push_back(std::string(kind) + " | " + place_of(code) + " | " + place_of(other) + " | " + details);
        write(reports.back());
    }

    static int wavefronts(const std::set<size_t>& words) {
        int in_bank[kBanks] = {}, most = 0;
        for (size_t word : words) most = std::max(most, ++in_bank[word % kBanks]);
        return most;
    }
    // The accesses of a warp since its last barrier, lane beside lane: 32, 16 or 8 lanes are served at a time, by their width.
    void count_conflicts(int warp) {
        if (!banks_) return;
        std::vector<Access>& list = accesses_[warp];
        std::stable_sort(list.begin(), list.end(),
                         [](const Access& a, const Access& b) { return a.code != b.code ? a.code < b.code : a.occurrence < b.occurrence; });
        for (size_t i = 0; i < list.size();) {
            size_t end = i;
            while (end < list.size() && list[end].code == list[i].code && list[end].occurrence == list[i].occurrence) ++end;
            const int size = list[i].size, lanes = size <= 4 ? 32 : size == 8 ? 16 : 8;
            Conflicts& found = conflicts[list[i].code];
            found.size = size, found.write = list[i].write, ++found.requests;
            for (int first = 0; first < kWarp; first += lanes) {
                std::set<size_t> words;
                for (size_t k = i; k < end; ++k)
                    if (list[k].lane >= first && list[k].lane < first + lanes)
                        for (int w = 0; w < std::max(1, size / 4); ++w) words.insert(list[k].address / 4 + w);
                if (!words.empty()) found.wavefronts += wavefronts(words), ++found.least;
            }
            i = end;
        }
        list.clear();
        for (int lane = 0; lane < kWarp; ++lane) occurrence_[warp * kWarp + lane].clear();
    }

    Region& add(size_t bytes, size_t align, bool left) {
        if (launch_ != launch_of_regions_) {  // arguments of a new call
            for (Region& region : regions_) munmap(region.pages, region.page_bytes);
            regions_.clear();
            launch_of_regions_ = launch_;
        }
        const size_t inner = (bytes + align + kPage - 1) / kPage * kPage;
        Region region;
        region.page_bytes = inner + 2 * kPage, region.bytes = bytes;
        void* pages = mmap(nullptr, region.page_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (pages == MAP_FAILED) throw std::runtime_error("checker: no memory");
        region.pages = static_cast<char*>(pages);
        mprotect(region.pages + kPage, inner, PROT_READ | PROT_WRITE);
        region.data = region.pages + kPage + (left ? 0 : (inner - bytes) / align * align);
        std::memset(region.pages + kPage, 0xff, inner);
        region.cells.resize(bytes / kCell + 1);
        regions_.push_back(std::move(region));
        return regions_.back();
    }

    std::string log_;
    bool banks_ = false;      // count conflicts
    bool from_left_ = false;  // tensors begin at a page instead of ending at one
    bool running_ = false, inside_ = false;
    const char* stack_ = nullptr;
    size_t stack_bytes_ = 0;
    int thread_ = 0, threads_ = 0;
    unsigned block_ = 0;
    char* shared_ = nullptr;
    size_t shared_bytes_ = 0, slack_ = 0;
    std::vector<SharedCell> cells_;
    uint64_t epoch_ = 1, block_start_ = 1, launch_ = 1, launch_of_regions_ = 1;  // epochs are between barriers of a block
    std::vector<uint64_t> warp_epoch_;
    std::vector<Region> regions_;
    std::set<std::tuple<std::string, void*, void*>> seen_;
    std::vector<std::vector<Access>> accesses_;               // of each warp
    std::vector<std::unordered_map<void*, int>> occurrence_;  // of each thread
};

Checker& checker() {
    static Checker instance;
    return instance;
}

// The wavefronts of each access with conflicts go to the log in the end.
void write_conflicts() {
    for (const auto& [code, found] : checker().conflicts)
        if (found.wavefronts > found.least) {
            char text[128];
            snprintf(text, sizeof text, "%s of %d bytes, %.2f wavefronts for one", found.write ? "write" : "read", found.size,
                     static_cast<double>(found.wavefronts) / static_cast<double>(found.least));
            checker().write("bank conflicts | " + place_of(code) + " | - | " + text);
        }
}

}  // namespace

// check(log, seed, banks, from_left) begins: reports are appended to the file, threads run in random order where there is a seed.
void define_checker(py::module_& m) {
    const auto check = [](const std::string& log, std::optional<unsigned> seed, bool banks, bool from_left) {
        checker().begin(log, banks, from_left);
        machine().random.reset(seed ? new std::mt19937(*seed) : nullptr);
        if (!machine().observer) atexit(write_conflicts);
        machine().observer = &checker();
    };
    m.def("check", check, py::arg("log") = "", py::arg("seed") = py::none(), py::arg("banks") = false, py::arg("from_left") = false);
    m.def("reports", [] { return checker().reports; });
    m.def("accesses", [] { return std::make_pair(checker().shared_accesses, checker().global_accesses); });
    // (place, write, bytes, requests, wavefronts, wavefronts without conflicts) of each access with conflicts
    m.def("conflicts", [] {
        std::vector<std::tuple<std::string, bool, int, int64_t, int64_t, int64_t>> list;
        for (const auto& [code, found] : checker().conflicts)
            if (found.wavefronts > found.least)
                list.emplace_back(place_of(code), found.write, found.size, found.requests, found.wavefronts, found.least);
        return list;
    });
}

}  // namespace isotypic::emulation

// ---- what the instrumentation calls
// ----------------------------------------------------------------------------------------------------------------------

#define CODE __builtin_return_address(0)
namespace {
inline void see(const void* pointer, size_t size, bool write, void* code) {
    isotypic::emulation::checker().access(pointer, size, write, code);
}
}  // namespace

extern "C" {

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
void __tsan_read_range(void* p, unsigned long n) {
    see(p, n, false, CODE);
}
void __tsan_write_range(void* p, unsigned long n) {
    see(p, n, true, CODE);
}

// clang-format off
#define ACCESS(prefix, n)                                                                   \
    void __tsan_##prefix##read##n(void* p) { see(p, n, false, CODE); }                      \
    void __tsan_##prefix##write##n(void* p) { see(p, n, true, CODE); }
#define ACCESSES(n) ACCESS(, n) ACCESS(unaligned_, n) ACCESS(volatile_, n)
ACCESSES(1) ACCESSES(2) ACCESSES(4) ACCESSES(8) ACCESSES(16)

// Atomics of the host code around the kernels.
#define ATOMIC(bits, T)                                                                                                                   \
    T __tsan_atomic##bits##_load(const volatile T* p, int) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }                               \
    void __tsan_atomic##bits##_store(volatile T* p, T v, int) { __atomic_store_n(p, v, __ATOMIC_SEQ_CST); }                               \
    T __tsan_atomic##bits##_exchange(volatile T* p, T v, int) { return __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST); }                     \
    T __tsan_atomic##bits##_fetch_add(volatile T* p, T v, int) { return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST); }                     \
    T __tsan_atomic##bits##_fetch_sub(volatile T* p, T v, int) { return __atomic_fetch_sub(p, v, __ATOMIC_SEQ_CST); }                     \
    int __tsan_atomic##bits##_compare_exchange_strong(volatile T* p, T* c, T v, int, int) {                                               \
        return __atomic_compare_exchange_n(p, c, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                                           \
    }
ATOMIC(8, char) ATOMIC(32, int) ATOMIC(64, long)
    // clang-format on

    // Copies of structures, which the compiler leaves to the library (-mmemcpy-strategy) and the linker brings here (--wrap).
    void* __real_memcpy(void*, const void*, size_t);
void* __real_memmove(void*, const void*, size_t);
void* __real_memset(void*, int, size_t);
void* __wrap_memcpy(void* target, const void* source, size_t n) {
    see(source, n, false, CODE);
    see(target, n, true, CODE);
    return __real_memcpy(target, source, n);
}
void* __wrap_memmove(void* target, const void* source, size_t n) {
    see(source, n, false, CODE);
    see(target, n, true, CODE);
    return __real_memmove(target, source, n);
}
void* __wrap_memset(void* target, int value, size_t n) {
    see(target, n, true, CODE);
    return __real_memset(target, value, n);
}

}  // extern "C"
