#include "cpu/isa.hpp"

#include <atomic>
#include <cstdlib>
#include <stdexcept>
#include <utility>

namespace isotypic::cpu {
namespace {

const std::pair<const char*, Isa> kNames[] = {{"scalar", Isa::scalar}, {"neon", Isa::neon}, {"avx2", Isa::avx2}, {"avx512", Isa::avx512}};

// Every flag that a variant is compiled with is asked for here (CMakeLists.txt).
bool supported(Isa isa) {
    switch (isa) {
        case Isa::scalar:
            return true;
#if defined(__x86_64__) && !defined(ISOTYPIC_SCALAR_ALONE)
        case Isa::avx2:
            return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
        case Isa::avx512:
            return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("avx512f") &&
                   __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
#elif defined(__aarch64__) && !defined(ISOTYPIC_SCALAR_ALONE)
        case Isa::neon:
            return true;
#endif
        default:
            return false;
    }
}

Isa parse(const std::string& name) {
    for (const auto& entry : kNames)
        if (name == entry.first && supported(entry.second)) return entry.second;
    std::string known;
    for (const auto& available : available_isas()) known += (known.empty() ? "" : ", ") + available;
    throw std::invalid_argument("ISOTYPIC_CPU_ISA: expected one of " + known + " on this machine, got '" + name + "'");
}

std::atomic<int>& current() {
    static std::atomic<int> value{-1};
    return value;
}

}  // namespace

std::vector<std::string> available_isas() {
    std::vector<std::string> names;
    for (const auto& entry : kNames)
        if (supported(entry.second)) names.push_back(entry.first);
    return names;
}

Isa isa() {
    const int value = current().load(std::memory_order_relaxed);
    if (value >= 0) return static_cast<Isa>(value);
    const char* wanted = std::getenv("ISOTYPIC_CPU_ISA");
    const Isa chosen = parse(wanted && *wanted ? std::string(wanted) : available_isas().back());
    current().store(static_cast<int>(chosen), std::memory_order_relaxed);
    return chosen;
}

std::string isa_name() {
    for (const auto& entry : kNames)
        if (entry.second == isa()) return entry.first;
    return "";
}

void set_isa(const std::string& name) {
    current().store(static_cast<int>(parse(name)), std::memory_order_relaxed);
}

}  // namespace isotypic::cpu
