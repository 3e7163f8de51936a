// Which instruction-set variant of the kernels runs.
#pragma once

#include <string>
#include <vector>

namespace isotypic::cpu {

enum class Isa { scalar, neon, avx2, avx512 };

std::vector<std::string> available_isas();  // what this machine can run, slowest first
std::string isa_name();                     // the one in use
void set_isa(const std::string& name);      // throws std::invalid_argument, naming the available ones
Isa isa();

}  // namespace isotypic::cpu
