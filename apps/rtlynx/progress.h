#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace rtlynx::cli {

/// Progress of long work on standard error: a bar with rate and time left on a terminal, otherwise a plain line for
/// every tenth of the work. Silent when `quiet`.
class Progress {
 public:
  Progress(std::string label, std::string unit, bool quiet);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void update(int64_t done, int64_t total);

 private:
  void draw(int64_t done, int64_t total, double seconds) const;

  std::string label_;
  std::string unit_;
  bool quiet_;
  bool is_terminal_;
  bool line_open_ = false;
  int64_t first_done_ = -1;  // work that an earlier run had finished counts for the bar, not for the rate
  int64_t last_tenth_ = -1;
  std::chrono::steady_clock::time_point start_;
};

/// "1 h 02 min", "3 min 20 s", "45 s", "0.8 s".
std::string format_duration(double seconds);

}  // namespace rtlynx::cli
