#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace rtlynx::cli {

/// What every verb takes.
struct CommonOptions {
  std::string device = "cpu";
  std::string dtype = "fp32";
  int threads = 0;  ///< 0: one per core
  bool quiet = false;
  bool verbose = false;
};

/// Adds -t, --device, --dtype, -q and -v.
void add_common_options(CLI::App& verb, CommonOptions& options);

/// Each adds its subcommand; the work is done in the subcommand's callback, which throws rtlynx::Error.
void add_generate(CLI::App& app);
void add_calibrate(CLI::App& app);
void add_skip(CLI::App& app);
/// `command`: this process's command line, which stands above the table.
void add_evaluate(CLI::App& app, const std::string& command);
void add_inspect(CLI::App& app);
void add_bench(CLI::App& app);

}  // namespace rtlynx::cli
