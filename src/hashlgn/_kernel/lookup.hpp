// Ids as the kernel holds them.
#pragma once

#include "binding.hpp"

namespace hashlgn {

class HeldIds {
 public:
  virtual ~HeldIds() = default;
  virtual size_t size() const = 0;
  // The id of a number.
  virtual nb::object id(int64_t number) const = 0;
  // The ids, where they are integers; else null.
  virtual const int64_t* integers() const { return nullptr; }
  // Numbers of a list of ids; false where a value is of another type, or unknown.
  virtual bool find(nb::list wanted, std::vector<int64_t>& numbers) const = 0;
};

}  // namespace hashlgn
