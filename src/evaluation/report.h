#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "evaluation/ablation.h"

namespace rtlynx::evaluation {

/// The table as Markdown; `heading` lines (what was run, on what) stand above it.
std::string to_markdown(const AblationResult& result, const std::string& heading);
/// One line a method, a header line first.
std::string to_csv(const AblationResult& result);
nlohmann::json to_json(const AblationResult& result);

/// The labelled contact sheet: a row for each method with its name, a column for each prompt with its caption.
pipeline::Image contact_sheet(const AblationResult& result);

}  // namespace rtlynx::evaluation
